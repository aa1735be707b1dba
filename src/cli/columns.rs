//! Rows of text as aligned columns.
//!
//! *Invariants:* the first row is the heading; lines have no trailing blanks.
//!
//! *Not here:* what the cells say.

/// Rows with each column as wide as its widest cell; a column of numbers, units included, is right-aligned.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let number = |cell: &str| cell == "–" || cell.split(' ').next().is_some_and(|word| word.parse::<f64>().is_ok());
    let shape: Vec<(usize, bool)> = (0..columns)
        .map(|c| {
            let width = rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
            (width, c > 0 && rows.iter().skip(1).all(|row| number(&row[c])))
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, (width, right)) in row.iter().zip(&shape) {
            let pad = " ".repeat(width - cell.chars().count());
            line.push_str(&if *right { format!("{pad}{cell}  ") } else { format!("{cell}{pad}  ") });
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
