//! An answer drawn in the terminal: braille dots, axes, and a legend.
//!
//! *Invariants:* a drawing is never wider than the screen. Without colours series are told apart by their letters.
//!
//! *Not here:* tables (`grid`).

use anyhow::bail;

use super::answer::Answer;
use super::{Screen, when};

/// Rows of the drawing; each is four dots high.
const ROWS: usize = 16;
/// Series drawn; the rest is only counted.
const MOST_SERIES: usize = 10;
/// ANSI foreground colours, told apart on dark and on light.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Series as points, and the box they lie in.
struct Scene {
    lines: Vec<Vec<(f64, f64)>>,
    x: (f64, f64),
    y: (f64, f64),
}

/// Draws the answer of a range query.
pub(super) fn draw(answer: &Answer, screen: Screen) -> anyhow::Result<String> {
    if !answer.ranged {
        bail!("only a range can be drawn: give --start, or leave out --time");
    }
    let Some(scene) = Scene::of(answer) else {
        return Ok("nothing to draw: no series with finite values\n".to_owned());
    };
    let labels: Vec<String> =
        (0..=4).map(|i| short(scene.y.1 - (scene.y.1 - scene.y.0) * f64::from(i) / 4.0)).collect();
    let margin = labels.iter().map(String::len).max().unwrap_or(0);
    let columns = screen.width.saturating_sub(margin + 3).max(10);
    let canvas = scene.paint(columns, screen.colour || scene.lines.len() == 1);
    let mut out = String::new();
    for (row, cells) in canvas.cells.chunks(columns).enumerate() {
        // A label at every fourth row, and one at the last.
        let at = if row + 1 == ROWS { Some(4) } else { (row % 4 == 0).then_some(row / 4) };
        let (label, tick) = at.map_or(("", '│'), |at| (labels[at].as_str(), '┤'));
        out.push_str(&format!("{label:>margin$} {tick}"));
        push_cells(&mut out, cells, screen.colour);
        out.push('\n');
    }
    let (from, to) = (when::show(scene.x.0), when::show(scene.x.1));
    out.push_str(&format!("{:margin$} └{}\n", "", "─".repeat(columns)));
    let gap = columns.saturating_sub(from.len() + to.len());
    let times = if gap > 0 { format!("{from}{}{to}", " ".repeat(gap)) } else { from };
    out.push_str(&format!("{:margin$}  {times}\n", ""));
    legend(&mut out, answer, screen);
    Ok(out)
}

fn legend(out: &mut String, answer: &Answer, screen: Screen) {
    for (at, series) in answer.series.iter().take(MOST_SERIES).enumerate() {
        let name: String = series.name().chars().take(screen.width.saturating_sub(4)).collect();
        let mark = if screen.colour { "━━".to_owned() } else { format!("{} ", letter(at)) };
        out.push_str(&format!("{} {name}\n", coloured(&mark, at, screen.colour)));
    }
    if answer.series.len() > MOST_SERIES {
        out.push_str(&format!("… and {} more series, not drawn\n", answer.series.len() - MOST_SERIES));
    }
}

impl Scene {
    fn of(answer: &Answer) -> Option<Self> {
        let finite = |text: &String| text.parse::<f64>().ok().filter(|v| v.is_finite());
        let lines: Vec<Vec<(f64, f64)>> = answer
            .series
            .iter()
            .take(MOST_SERIES)
            .map(|s| s.points.iter().filter_map(|p| Some((p.seconds, finite(&p.value)?))).collect())
            .collect();
        let span = |pick: fn(&(f64, f64)) -> f64| {
            let all = lines.iter().flatten().map(pick);
            all.fold(None, |span: Option<(f64, f64)>, v| Some(span.map_or((v, v), |(lo, hi)| (lo.min(v), hi.max(v)))))
        };
        let (x, y) = (span(|p| p.0)?, span(|p| p.1)?);
        // A flat line is drawn in the middle; half of each end keeps the difference of huge ones finite.
        let y = if y.0 == y.1 { (y.0 - y.0.abs().max(1.0) / 2.0, y.1 + y.1.abs().max(1.0) / 2.0) } else { y };
        Some(Self { lines, x, y })
    }

    fn paint(&self, columns: usize, braille: bool) -> Canvas {
        let mut canvas = Canvas { columns, braille, cells: vec![Cell::default(); columns * ROWS] };
        let place = |v: f64, (lo, hi): (f64, f64), dots: usize| {
            let share = if hi > lo { (v / 2.0 - lo / 2.0) / (hi / 2.0 - lo / 2.0) } else { 0.5 };
            (share * (dots - 1) as f64).round().clamp(0.0, (dots - 1) as f64)
        };
        for (at, line) in self.lines.iter().enumerate() {
            let mut last = None;
            for (x, y) in line {
                let dot = (place(*x, self.x, columns * 2), (ROWS * 4 - 1) as f64 - place(*y, self.y, ROWS * 4));
                canvas.line(last.unwrap_or(dot), dot, at);
                last = Some(dot);
            }
        }
        canvas
    }
}

/// One character: eight dots, and the series that touched it last.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    dots: u8,
    series: usize,
    letter: bool,
}

struct Canvas {
    columns: usize,
    /// Dots; otherwise letters.
    braille: bool,
    cells: Vec<Cell>,
}

impl Canvas {
    fn line(&mut self, from: (f64, f64), to: (f64, f64), series: usize) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).max(1.0);
        for step in 0..=steps as usize {
            let share = step as f64 / steps;
            let x = (from.0 + (to.0 - from.0) * share).round() as usize;
            let y = (from.1 + (to.1 - from.1) * share).round() as usize;
            self.dot(x, y, series);
        }
    }

    fn dot(&mut self, x: usize, y: usize, series: usize) {
        // Bits of a braille character, by column and row.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        if let Some(cell) = self.cells.get_mut((y / 4) * self.columns + x / 2) {
            cell.dots |= BITS[x % 2][y % 4];
            cell.series = series;
            cell.letter = !self.braille;
        }
    }
}

fn push_cells(out: &mut String, cells: &[Cell], colour: bool) {
    let end = cells.iter().rposition(|cell| cell.dots != 0).map_or(0, |at| at + 1);
    for cell in &cells[..end] {
        match cell.dots {
            0 => out.push(' '),
            _ if cell.letter => out.push(letter(cell.series)),
            dots => {
                let c = char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ');
                out.push_str(&coloured(&c.to_string(), cell.series, colour));
            }
        }
    }
}

fn coloured(text: &str, series: usize, colour: bool) -> String {
    if colour { format!("\x1b[{}m{text}\x1b[0m", COLOURS[series % COLOURS.len()]) } else { text.to_owned() }
}

fn letter(series: usize) -> char {
    char::from(b'a' + (series % 26) as u8)
}

/// A number in few characters: `1.25M`, `340µ`.
fn short(value: f64) -> String {
    const UNITS: [(f64, &str); 8] =
        [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")];
    if value == 0.0 {
        return "0".to_owned();
    }
    match UNITS.iter().find(|(size, _)| value.abs() >= *size) {
        Some((size, unit)) if value.abs() < 1e15 => {
            let digits = format!("{:.2}", value / size);
            format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1250.0, "-1.25k"),
            (2.5e6, "2.5M"),
            (0.00034, "340u"),
            (3e20, "3.0e20"),
            (1e-12, "1.0e-12"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
