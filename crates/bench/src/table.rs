//! What the bench says: progress to standard error, tables to standard
//! output, everything as JSON for machines, and the bounds that must hold.

use std::io::Write;

use serde::Serialize;

/// One line of progress, for whoever watches.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "bench: {text}");
}

/// One line of data. A reader who has gone is not an error.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Repeated measurements of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// Middle value; of two middle ones their mean. NaN when nothing was measured.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// `median (min-max)` with so many decimals; `-` when nothing was measured.
    pub(crate) fn show(&self, decimals: usize) -> String {
        match self.0.len() {
            0 => "-".to_owned(),
            1 => format!("{:.decimals$}", self.median()),
            _ => format!("{:.decimals$} ({:.decimals$}-{:.decimals$})", self.median(), self.min(), self.max()),
        }
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Serialize for Samples {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut s = serializer.serialize_struct("Samples", 4)?;
        let number = |value: f64| value.is_finite().then_some(value);
        s.serialize_field("median", &number(self.median()))?;
        s.serialize_field("min", &number(self.min()))?;
        s.serialize_field("max", &number(self.max()))?;
        s.serialize_field("samples", &self.0)?;
        s.end()
    }
}

/// A figure with the bound it is held to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) figure: String,
    pub(crate) value: f64,
    pub(crate) bound: f64,
    pub(crate) unit: &'static str,
    pub(crate) holds: bool,
}

impl Check {
    pub(crate) fn at_least(figure: impl Into<String>, value: f64, bound: f64, unit: &'static str) -> Self {
        Self { figure: figure.into(), value, bound, unit, holds: value >= bound }
    }

    pub(crate) fn at_most(figure: impl Into<String>, value: f64, bound: f64, unit: &'static str) -> Self {
        Self { figure: figure.into(), value, bound, unit, holds: value <= bound }
    }

    /// A figure that should be there and is not; it misses.
    pub(crate) fn not_measured(figure: impl Into<String>) -> Self {
        Self::at_most(figure, f64::NAN, 0.0, "")
    }

    /// One line for a human; says by how much a bound is missed.
    pub(crate) fn show(&self) -> String {
        let Self { figure, value, bound, unit, holds } = self;
        if value.is_nan() {
            return format!("  MISS  {figure}: not measured");
        }
        let miss = 100.0 * (value - bound).abs() / bound;
        if *holds {
            format!("  ok    {figure}: {value:.3} {unit} (bound {bound})")
        } else {
            format!("  MISS  {figure}: {value:.3} {unit}, bound {bound}, missed by {miss:.0} %")
        }
    }
}

/// A table of text, columns as wide as their widest cell; the first is
/// aligned left, the others right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self, title: &str) {
        say(&format!("\n{title}"));
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let line: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(
                    |(column, (cell, &width))| {
                        if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                    },
                )
                .collect();
            say(line.join("  ").trim_end());
            if number == 0 {
                say(&"-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let samples: Samples = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!((samples.median(), samples.min(), samples.max()), (2.5, 1.0, 4.0));
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn a_figure_that_was_not_measured_misses_its_bound() {
        assert!(!Check::at_least("x", f64::NAN, 0.75, "").holds);
        assert!(!Check::at_most("x", f64::NAN, 0.75, "").holds);
        assert!(Check::at_most("x", 0.75, 0.75, "").holds);
    }
}
