//! Aligned columns.

/// Lines of columns, each as wide as its widest cell: to the right, but the last to the left.
pub(crate) fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let last = N.saturating_sub(1);
        let cells = row.iter().enumerate().map(|(column, cell)| {
            if column == last { cell.clone() } else { format!("{cell:>0$}", width(column)) }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A line `name   value`.
pub(crate) fn line(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name:<14}{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = align(&[row(["a", "bytes", "ends"]), row(["10", "7", "clean"])]);
        assert_eq!(text, " a  bytes  ends\n10      7  clean\n");
    }
}
