//! What Go's own tests and documentation say of its regular expressions.

use proptest::prelude::*;

use super::shape::Shape;
use super::*;

fn error(pattern: &str) -> String {
    match Pattern::new(pattern) {
        Ok(_) => "none".to_owned(),
        Err(e) => e.to_string().trim_start_matches("error parsing regexp: ").to_owned(),
    }
}

fn matches(pattern: &str, value: &str) -> bool {
    Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")).matches(value)
}

#[test]
fn errors_are_worded_as_go_words_them() {
    for (pattern, message) in [
        ("*", "missing argument to repetition operator: `*`"),
        ("a|*?b", "missing argument to repetition operator: `*?`"),
        ("(+)", "missing argument to repetition operator: `+`"),
        ("(abc", "missing closing ): `(abc`"),
        ("abc)", "unexpected ): `abc)`"),
        ("a)(b", "unexpected ): `a)(b`"),
        ("x[a-z", "missing closing ]: `[a-z`"),
        ("[]", "missing closing ]: `[]`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[a--b]", "invalid character class range: `a--`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        (r"\pQ", r"invalid character class range: `\pQ`"),
        (r"\p{Grek}", r"invalid character class range: `\p{Grek}`"),
        (r"\p{Alphabetic}", r"invalid character class range: `\p{Alphabetic}`"),
        (r"\p{Greek", r"invalid character class range: `\p{Greek`"),
        ("abc\\", "trailing backslash at end of expression: ``"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a*+", "invalid nested repetition operator: `*+`"),
        ("a{2}??", "invalid nested repetition operator: `{2}??`"),
        (r"\x", r"invalid escape sequence: `\x`"),
        (r"\xzq", r"invalid escape sequence: `\xzq`"),
        (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
        (r"\8", r"invalid escape sequence: `\8`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\<", "none"),
        (r"[\b]", r"invalid escape sequence: `\b`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("a{99999999999}", "invalid repeat count: `{99999999999}`"),
        ("((a{100}){10}){2}", "invalid repeat count: `{2}`"),
        ("(((a{100}){10}){0}){7}", "none"),
        ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
        ("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("(?P<x y>a)", "invalid named capture: `(?P<x y>`"),
        ("(?<=a)b", "invalid named capture: `(?<=a)b`"),
        ("(?<>a)", "invalid named capture: `(?<>`"),
    ] {
        assert_eq!(error(pattern), message, "{pattern}");
    }
}

#[test]
fn reads_what_go_reads() {
    for (pattern, value) in [
        // Braces and brackets that are none.
        ("a{", "a{"),
        ("a{,2}", "a{,2}"),
        ("a{01}", "a{01}"),
        ("a{1,x}", "a{1,x}"),
        ("]}", "]}"),
        ("[]a]+", "]a"),
        ("[a-]+", "a-a"),
        ("[-a]+", "a-a"),
        ("[[a]", "["),
        ("[[:word]", ":"),
        ("[a&&b]+", "&ab"),
        ("[^a~~b]", "x"),
        // Quoting.
        (r"\Qa.b*\E.", "a.b*c"),
        (r"\Qa|b", "a|b"),
        (r"a\Q\E+", "aa"),
        (r"\.\_\-\/\%\<\>\é", ""),
        // Escapes.
        (r"\x41\x{1F600}\101\0\07\a\f\t\n\r\v", "A😀A\0\x07\x07\x0c\t\n\r\x0b"),
        // Anchors anywhere.
        (r"^\Aab\z$", "ab"),
        ("^*a$+", "a"),
        (r"a\b-\Bb?", "a-"),
        // Flags.
        ("a.b", "a\nb"),
        ("a(?-s:.)b", "axb"),
        ("(?i)straße|k", "\u{212a}"),
        ("(?i:a)b", "Ab"),
        ("a(?i)b|c", "C"),
        ("(a(?i)b)c", "aBc"),
        ("(?m)^a$.^b$", "a\nb"),
        ("(?U)a+?", "aaa"),
        ("(?:)*(|a)+()", "a"),
        // Classes.
        (r"\d\D\w\W\s\S", "1aa- a"),
        (r"[\d\-x]+[^\D]", "1-x2"),
        ("[[:^alpha:]][[:xdigit:]]", "-f"),
        (r"\pL\PL\p{^L}\P{^L}", "é1-é"),
        (r"\p{Greek}\p{Lu}\p{greek}\p{ Upper case_letter}", "αAβB"),
        (r"\p{Any}\p{ASCII}\p{Zl}", "xx\u{2028}"),
        // Names, also two of the same.
        ("(?P<n>a)(?<n>b)(?<1>c)", "abc"),
    ] {
        if value.is_empty() {
            assert_eq!(error(pattern), r"invalid escape sequence: `\é`");
            continue;
        }
        assert!(matches(pattern, value), "{pattern} should match {value:?}");
        // Without the shortcuts too.
        let flags = Flags { dot_matches_newline: true, ..Flags::default() };
        let hir = parse::parse(pattern, flags, true).unwrap().hir;
        let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
        assert!(compile(&anchored, pattern).unwrap().is_match(value), "{pattern} should match {value:?}");
    }
    for (pattern, value) in [
        ("a(?-s:.)b", "a\nb"),
        (r"\d", "٣"),
        (r"\w", "é"),
        ("[^a]", ""),
        ("a|b", "ab"),
        ("(?i-i:a)", "A"),
        ("((?i)a)b", "aB"),
        (r"\x{D800}?a", "b"),
        ("[a&&b]", "c"),
    ] {
        assert!(!matches(pattern, value), "{pattern} should not match {value:?}");
    }
}

#[test]
fn simple_patterns_need_no_engine() {
    let shape = |pattern: &str| match Pattern::new(pattern).unwrap().shape {
        Shape::Set(values) => values.join(","),
        Shape::Around { prefix, suffix, some } => format!("{prefix}{}{suffix}", if some { ".+" } else { ".*" }),
        Shape::Contains(text) => format!(".*{text}.*"),
        Shape::Other(_) => "engine".to_owned(),
    };
    for (pattern, want) in [
        ("", ""),
        ("foo", "foo"),
        ("^foo$", "foo"),
        (r"foo\.bar", "foo.bar"),
        ("b|a|b", "a,b"),
        ("a||b", ",a,b"),
        ("(?:x|y)[12]z?", "x1,x1z,x2,x2z,y1,y1z,y2,y2z"),
        ("(?i)ab", "AB,Ab,aB,ab"),
        ("node-(1|2)", "node-1,node-2"),
        (".*", ".*"),
        ("(.+)", ".+"),
        ("^foo.*$", "foo.*"),
        (".+foo", ".+foo"),
        ("foo.*?bar", "foo.*bar"),
        (".*foo.*", ".*foo.*"),
        (".*foo.+", "engine"),
        ("foo[^x]*", "engine"),
        ("(?-s:foo.*)", "engine"),
        ("[a-z]{3}", "engine"),
        (r"\d\d\d\d", "engine"),
        ("a*", "engine"),
    ] {
        assert_eq!(shape(pattern), want, "{pattern}");
    }
    let many: Vec<String> = (0..5000).map(|i| format!("node-{i}")).collect();
    assert_eq!(Pattern::new(&many.join("|")).unwrap().literals().unwrap().len(), 5000);
    assert!(!matches("ab.+bc", "abc") && !matches("ab.*bc", "abc") && matches("ab.*bc", "abbc"));
}

#[test]
fn deep_and_large_patterns_are_refused_on_a_small_stack() {
    let deep = |n: usize| format!("{}b{}", "(?:a|x".repeat(n), ")*y".repeat(n));
    let run = move || {
        assert!(matches(
            &"(".repeat(240).replace('(', "(?:a|").chars().chain(")".repeat(240).chars()).collect::<String>(),
            "a"
        ));
        assert!(error(&deep(100_000)).starts_with("expression nests too deeply"));
        assert!(matches(&format!("{}a{}", "(".repeat(200), ")".repeat(200)), "a"));
        assert!(Replacer::new(&format!("{}a{}", "(".repeat(200), ")".repeat(200))).is_ok());
        assert!(matches(&deep(80), "y"));
        assert!(error(r"(\pL{100}){10}(\pL{100}){10}(\pL{100}){10}(\pL{100}){10}").starts_with("expression too large"));
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn templates_expand_as_go_expands_them() {
    let pattern = Replacer::new("(?P<first>a+)(b)?(?<last>c*)").unwrap();
    let expand = |template: &str| pattern.replace("aac", &pattern.template(template));
    for (template, want) in [
        ("$1", "aa"),
        ("$1-$3", "aa-c"),
        ("$0", "aac"),
        ("[$2]", "[]"),
        ("[$9]", "[]"),
        ("$1x", ""),
        ("${1}x", "aax"),
        ("$first.$last", "aa.c"),
        ("${first}_", "aa_"),
        ("$first_", ""),
        ("$01", ""),
        ("$$1", "$1"),
        ("$", "$"),
        ("$ 1", "$ 1"),
        ("${1", "${1"),
        ("${}", "${}"),
        ("$éa-", "-"),
        ("a$1b", "a"),
        ("$99999999999999999999", ""),
    ] {
        assert_eq!(expand(template).as_deref(), Some(want), "{template}");
    }
    assert_eq!(pattern.replace("x", &pattern.template("$1")), None);
    // Text is put around the pattern, so what is not balanced may still be two alternatives.
    let odd = Replacer::new("a)|(b").unwrap();
    assert_eq!(odd.replace("ax", &odd.template("$1.")).as_deref(), Some("."));
    let same_name = Replacer::new("(?P<n>a)|(?P<n>b)").unwrap();
    assert_eq!(same_name.replace("b", &same_name.template("$n")).as_deref(), Some("b"));
}

proptest! {
    /// In what both dialects have in common both mean the same; Go has no `a**`.
    #[test]
    fn agrees_with_another_parser(pattern in r"([ab.|()]|[ab.)][?*+]){0,8}", value in "[ab\n]{0,6}") {
        let theirs = regex::Regex::new(&format!("^(?s:{pattern})$"));
        match (Pattern::new(&pattern), theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours.matches(&value), theirs.is_match(&value), "{}", pattern),
            // Text put around a pattern can balance it.
            (Err(e), Ok(_)) => prop_assert!(e.to_string().contains("unexpected )"), "{}: {}", pattern, e),
            (Ok(_), Err(e)) => prop_assert!(false, "{}: {}", pattern, e),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn nothing_panics(pattern in r"[\\(){}\[\]?*+^$.|,:<>P=!\-a-dxQEpL0-3é]{0,24}", value in "[a-dé]{0,4}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            pattern.matches(&value);
        }
        if let Ok(replacer) = Replacer::new(&pattern) {
            replacer.replace(&value, &replacer.template(&pattern));
        }
    }
}
