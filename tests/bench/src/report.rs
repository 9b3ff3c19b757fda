//! What was measured: rows with our figure, the rival's, their ratio and the bar.

use std::io::IsTerminal as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Costs, times, sizes.
    Lower,
    /// Rates.
    Higher,
}

/// What a row must reach.
#[derive(Clone, Debug, PartialEq)]
pub enum Bar {
    /// Nothing: the figure is reported.
    None,
    /// Our figure is at most this.
    AtMost(f64),
    /// Our figure is at least this.
    AtLeast(f64),
    /// Ours is so many times better than the rival's.
    Times(f64),
    /// Both of two.
    Both(Box<Bar>, Box<Bar>),
}

/// One line of the table, and one object of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured, of both in the same way.
    pub metric: String,
    /// Our figure; nothing where it could not be measured.
    pub ours: Option<f64>,
    /// The rival's.
    pub theirs: Option<f64>,
    /// Who the rival is; where there is no figure of its, why.
    pub rival: String,
    /// The unit of both figures.
    pub unit: String,
    /// How many times better ours is: above one it is better, whether low or high figures are good.
    pub ratio: Option<f64>,
    /// What must be reached, in words.
    pub bar: String,
    /// Whether it was; nothing where there is no bar.
    pub pass: Option<bool>,
}

impl Row {
    /// A row of our figure alone, without a bar.
    pub fn new(metric: impl Into<String>, unit: impl Into<String>, ours: f64) -> Self {
        Self {
            metric: metric.into(),
            ours: Some(ours),
            theirs: None,
            rival: String::new(),
            unit: unit.into(),
            ratio: None,
            bar: Bar::None.words(),
            pass: None,
        }
    }

    /// A measurement that did not come to its end, which is a failure.
    pub fn failed(metric: impl Into<String>, why: &str) -> Self {
        Self {
            ours: None,
            rival: format!("not measured: {}", short(why)),
            bar: "measured".into(),
            pass: Some(false),
            ..Self::new(metric, "", 0.0)
        }
    }

    /// Adds the rival's figure.
    #[must_use]
    pub fn against(self, rival: impl Into<String>, theirs: f64, better: Better) -> Self {
        let ratio = self.ours.and_then(|ours| {
            let (good, bad) = match better {
                Better::Lower => (ours, theirs),
                Better::Higher => (theirs, ours),
            };
            // A cost below what can be measured: no ratio is known.
            (good > 0.0 && bad > 0.0).then(|| bad / good)
        });
        Self { theirs: Some(theirs), rival: rival.into(), ratio, ..self }
    }

    /// Names a rival that does not run here, and why.
    #[must_use]
    pub fn without(self, rival: &str, why: impl std::fmt::Display) -> Self {
        Self { rival: format!("{rival} does not run: {}", short(&why.to_string())), ..self }
    }

    /// Sets what must be reached. The figures come first.
    #[must_use]
    pub fn bar(self, bar: &Bar) -> Self {
        let pass = match bar {
            Bar::None => None,
            // What could not be compared was not passed; the row's rival says why.
            bar => Some(self.reaches(bar)),
        };
        Self { bar: bar.words(), pass, ..self }
    }

    fn reaches(&self, bar: &Bar) -> bool {
        match bar {
            Bar::None => true,
            Bar::AtMost(most) => self.ours.is_some_and(|ours| ours <= *most),
            Bar::AtLeast(least) => self.ours.is_some_and(|ours| ours >= *least),
            // Where ours costs nothing that can be measured and theirs does, no ratio is needed.
            Bar::Times(times) => match (self.ratio, self.ours, self.theirs) {
                (Some(ratio), _, _) => ratio >= *times,
                (None, Some(ours), Some(theirs)) => ours <= 0.0 && theirs > 0.0,
                (None, ..) => false,
            },
            Bar::Both(one, other) => self.reaches(one) && self.reaches(other),
        }
    }
}

impl Bar {
    fn words(&self) -> String {
        match self {
            Self::None => "-".into(),
            Self::AtMost(most) => format!("≤ {}", figure(*most)),
            Self::AtLeast(least) => format!("≥ {}", figure(*least)),
            Self::Times(times) => format!("≥ {} times", figure(*times)),
            Self::Both(one, other) => format!("{}, {}", one.words(), other.words()),
        }
    }
}

/// The first of what a program had to say, on one line.
fn short(why: &str) -> String {
    const MOST: usize = 240;
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST).chain("...".chars()).collect() }
}

/// A figure as a person reads it: three digits that count, thousands apart.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        let digits = format!("{size:.0}");
        let mut text = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(' ');
            }
            text.push(digit);
        }
        return format!("{}{text}", if value < 0.0 { "-" } else { "" });
    }
    let text = if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Draws the table.
pub fn table(rows: &[Row]) -> String {
    /// Where it is no terminal that the table is drawn on.
    const WIDTH: u16 = 190;
    let mut table = Table::new();
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["metric", "ours", "theirs", "unit", "rival", "ratio", "bar", "pass"]);
    for Row { metric, ours, theirs, rival, unit, ratio, bar, pass } in rows {
        let number = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
        table.add_row([
            metric.clone(),
            number(ours),
            number(theirs),
            unit.clone(),
            rival.clone(),
            number(ratio),
            bar.clone(),
            match pass {
                Some(true) => "pass",
                Some(false) => "FAIL",
                None => "-",
            }
            .to_owned(),
        ]);
    }
    for column in [1, 2, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_better_and_the_bar_is_held_against_it() {
        for (sentence, row, bar, ratio, pass) in [
            (
                "a cost, four times lower",
                row(100.0, Some(400.0), Better::Lower),
                Bar::Times(4.0),
                Some(4.0),
                Some(true),
            ),
            (
                "a cost, not quite",
                row(101.0, Some(400.0), Better::Lower),
                Bar::Times(4.0),
                Some(400.0 / 101.0),
                Some(false),
            ),
            ("a rate, twice as high", row(10.0, Some(5.0), Better::Higher), Bar::Times(2.0), Some(2.0), Some(true)),
            ("nothing that can be measured", row(-0.1, Some(5.0), Better::Lower), Bar::Times(40.0), None, Some(true)),
            ("both below it", row(-0.1, Some(-0.2), Better::Lower), Bar::Times(40.0), None, Some(false)),
            ("no rival", row(10.0, None, Better::Lower), Bar::Times(2.0), None, Some(false)),
            ("at most", row(10.0, None, Better::Lower), Bar::AtMost(10.0), None, Some(true)),
            ("at least", row(9.9, None, Better::Higher), Bar::AtLeast(10.0), None, Some(false)),
            (
                "one of two",
                row(10.0, Some(20.0), Better::Lower),
                Bar::Both(Box::new(Bar::AtMost(10.0)), Box::new(Bar::Times(3.0))),
                Some(2.0),
                Some(false),
            ),
            ("no bar", row(10.0, None, Better::Lower), Bar::None, None, None),
        ] {
            let row = row.bar(&bar);
            assert_eq!((row.ratio, row.pass), (ratio, pass), "{sentence}");
        }
    }

    #[test]
    fn the_json_has_these_keys_and_no_others() {
        let row = row(1.0, Some(2.0), Better::Lower).bar(&Bar::Times(2.0));
        let json = serde_json::to_string(&[row]).expect("it serialises");
        let expected = r#"[{"metric":"m","ours":1.0,"theirs":2.0,"rival":"r","unit":"ns","ratio":2.0,"bar":"≥ 2 times","pass":true}]"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn figures_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (4.256, "4.26"),
            (12.0, "12"),
            (12.34, "12.3"),
            (250.4, "250"),
            (1_234_567.0, "1 234 567"),
            (-1500.0, "-1 500"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    fn row(ours: f64, theirs: Option<f64>, better: Better) -> Row {
        let row = Row::new("m", "ns", ours);
        match theirs {
            Some(theirs) => row.against("r", theirs, better),
            None => row,
        }
    }
}
