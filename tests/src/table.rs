//! A table of steps: what was done, what was expected, what came.

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    /// What was done.
    pub(crate) what: String,
    /// What must come.
    pub(crate) expected: String,
    /// What came.
    pub(crate) got: String,
    /// Whether they agree.
    pub(crate) ok: bool,
}

/// Draws the table.
pub(crate) fn draw(steps: &[Step]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "step", "expected", "got", "ok"]);
    for (number, Step { what, expected, got, ok }) in steps.iter().enumerate() {
        let number = (number + 1).to_string();
        table.add_row([number.as_str(), what, expected, got, if *ok { "yes" } else { "NO" }]);
    }
    table.to_string()
}
