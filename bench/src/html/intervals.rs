//! Ratios with their confidence intervals as one chart: a line each, around 1. The tables beside it hold the same ratios.

use std::fmt::Write;

use super::chart::{SIDE, Scale, Span, across, grid, share, unit};
use super::escape;

/// A ratio with its interval, for [`intervals`].
#[derive(Clone, Debug)]
pub struct Interval {
    /// What.
    pub label: String,
    /// Median.
    pub middle: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Bounds that were hoped for: drawn as a tick.
    pub goal: Option<f64>,
}

/// Ratios on a logarithmic axis around 1, one line each.
pub fn intervals(id: &str, title: &str, about: &str, rows: &[Interval]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_intervals(id, title, about, rows, &mut out);
    out
}

/// Height of a row, in pixels.
const ROW_HEIGHT: usize = 40;

fn write_intervals(
    id: &str,
    title: &str,
    about: &str,
    rows: &[Interval],
    out: &mut String,
) -> std::fmt::Result {
    let ends = rows
        .iter()
        .flat_map(|row| [row.low, row.high, row.middle].into_iter().chain(row.goal));
    let Some(x) = Span::over(Scale::Log, ends.chain([0.5, 2.0])) else {
        return Ok(());
    };
    writeln!(
        out,
        "<figure class=\"chart whole\" id=\"{id}\"><figcaption><h4 id=\"{id}-t\">{}</h4><p id=\"{id}-d\">{}</p></figcaption>",
        escape(title),
        escape(about)
    )?;
    // Each row has a height of its own units in the drawing that stretches, and the same share of the height in percent.
    let step = 1.0 / rows.len().max(1) as f64;
    write!(
        out,
        "<svg class=\"plot rows\" height=\"{}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><svg viewBox=\"0 0 {SIDE} {SIDE}\" preserveAspectRatio=\"none\"><path class=\"grid\" d=\"{}\"/><path class=\"one\" d=\"M{} 0v1000\"/>",
        ROW_HEIGHT * rows.len(),
        grid(x, None),
        unit(x.place(1.0))
    )?;
    let middle = |index: u32| step * (f64::from(index) + 0.72);
    for (index, row) in (0u32..).zip(rows) {
        let (low, high) = (unit(x.place(row.low)), unit(x.place(row.high)));
        let at = unit(middle(index));
        write!(
            out,
            "<path class=\"interval c0\" d=\"M{low} {at}h{}\"/>",
            high - low
        )?;
    }
    write!(out, "</svg>")?;
    across(x, "×", "ratio, logarithmic; 1× is alike", out)?;
    for (index, row) in (0u32..).zip(rows) {
        let at = share(middle(index));
        write!(
            out,
            "<text class=\"name\" y=\"{at}%\" dy=\"-9\">{}</text><circle class=\"dot c0\" cx=\"{}%\" cy=\"{at}%\" r=\"4.5\"/>",
            escape(&row.label),
            share(x.place(row.middle))
        )?;
        if let Some(goal) = row.goal {
            let goal = share(x.place(goal));
            write!(
                out,
                "<svg class=\"at\" x=\"{goal}%\" y=\"{at}%\"><path class=\"goal\" d=\"M0-7V7\"/></svg>"
            )?;
        }
    }
    writeln!(out, "</svg>")?;
    writeln!(out, "</figure>")
}
