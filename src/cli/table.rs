//! The one table preset: header in capitals, no borders, two spaces between columns, numbers to the right.
//!
//! Tables look as `kubectl get` prints them, on a terminal and through a pipe alike: nothing is cut off and no cell
//! wraps, so `awk` sees the same columns as a person.

use comfy_table::{Cell, CellAlignment, ContentArrangement, TableStyle};

use crate::escape::escape;

/// Rows under a header, ready for [`Output::data`](super::output::Output::data).
#[derive(Debug)]
pub struct Table {
    table: comfy_table::Table,
    empty: bool,
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Words, to the left.
    Text(&'static str),
    /// Numbers, to the right.
    Number(&'static str),
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(columns: &[Column]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|column| match column {
            Column::Text(name) => Cell::new(name.to_uppercase()),
            Column::Number(name) => Cell::new(name.to_uppercase()).set_alignment(CellAlignment::Right),
        }));
        for (column, kind) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if matches!(kind, Column::Number(_)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, empty: true }
    }

    /// Adds a row. Control characters are escaped, line feeds too: a row is one line.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.empty = false;
        self.table.add_row(cells.into_iter().map(|cell| Cell::new(one_line(cell.as_ref()))));
    }

    /// Whether there is nothing to show; then one sentence on stderr says so instead.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// The table as lines, without trailing spaces.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn one_line(text: &str) -> String {
    escape(text).replace('\n', "\\n").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_kubectl() {
        let mut table = Table::new(&[Column::Text("name"), Column::Number("bytes"), Column::Text("value")]);
        table.row(["device_fqdn", "22", "node.tail.ts.net."]);
        table.row(["authkey", "1024", ""]);
        let expected = "NAME         BYTES  VALUE\n\
                        device_fqdn     22  node.tail.ts.net.\n\
                        authkey       1024\n";
        assert_eq!(table.render(), expected);
        assert!(!table.is_empty());
    }

    #[test]
    fn a_row_is_one_line_however_long_or_hostile() {
        let long = "x".repeat(400);
        let mut table = Table::new(&[Column::Text("a"), Column::Text("b")]);
        table.row([long.as_str(), "two\nlines\u{202e}"]);
        assert_eq!(table.render(), format!("A{}  B\n{long}  two\\nlines\\u{{202e}}\n", " ".repeat(399)));
    }

    #[test]
    fn without_rows_it_is_empty() {
        assert!(Table::new(&[Column::Text("a")]).is_empty());
    }
}
