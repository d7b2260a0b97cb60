//! Tables and verdicts on standard output, words on standard error.

use std::io::Write;

/// A table with aligned columns, the first to the left and the others to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|&head| head.to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: &[String]) {
        self.rows.push(cells.to_vec());
    }

    pub fn print(&self, title: &str) {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        say(&format!("\n{title}\n"));
        for (place, row) in self.rows.iter().enumerate() {
            let mut line = format!("| {:<first$} |", row[0], first = widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                line += &format!(" {cell:>width$} |");
            }
            say(&line);
            if place == 0 {
                let mut rule = format!("|{}|", "-".repeat(widths[0] + 2));
                for &width in &widths[1..] {
                    rule += &format!("{}:|", "-".repeat(width + 1));
                }
                say(&rule);
            }
        }
    }
}

/// One target, met or not. A noisy machine misses targets, so this never ends a bench.
pub fn verdict(target: &str, met: bool, figure: &str) {
    say(&format!("{} {target}: {figure}", if met { "PASS" } else { "FAIL" }));
}

pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
