//! Ratios with their confidence intervals as one chart: a line each, around 1. The tables beside it hold the same ratios.

use std::fmt::Write;

use super::chart::{BOTTOM, FRAMES, Scale, Span, TOP};
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
        "<figure class=\"chart whole\" id=\"{id}\"><figcaption><h4>{}</h4><p>{}</p></figcaption>",
        escape(title),
        escape(about)
    )?;
    const STEP: f64 = 40.0;
    for frame in &FRAMES {
        let height = TOP + STEP * rows.len() as f64 + BOTTOM;
        let (left, right) = (12.0, frame.width - 12.0);
        let across = |value: f64| left + x.place(value) * (right - left);
        let (name, bottom) = (frame.name, height - BOTTOM);
        writeln!(
            out,
            "<svg class=\"plot {name}\" viewBox=\"0 0 {} {height}\" role=\"img\" aria-labelledby=\"{id}-{name}-t {id}-{name}-d\"><title id=\"{id}-{name}-t\">{}</title><desc id=\"{id}-{name}-d\">{} The tables below hold the same ratios.</desc>",
            frame.width,
            escape(title),
            escape(about)
        )?;
        for (value, text) in x.ticks(frame.ticks) {
            let at = across(value);
            writeln!(
                out,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/><text class=\"tick mid\" x=\"{at:.1}\" y=\"{:.1}\">{text}×</text>",
                bottom + 16.0
            )?;
        }
        let one = across(1.0);
        writeln!(
            out,
            "<path class=\"one\" d=\"M{one:.1} {TOP}V{bottom:.1}\"/><text class=\"label mid\" x=\"{:.1}\" y=\"{:.1}\">ratio, logarithmic; 1× is alike</text>",
            (left + right) / 2.0,
            height - 6.0
        )?;
        for (index, row) in (0u32..).zip(rows) {
            let middle = TOP + STEP * (f64::from(index) + 0.72);
            writeln!(
                out,
                "<text class=\"name\" x=\"{left}\" y=\"{:.1}\">{}</text><path class=\"interval c0\" d=\"M{:.1} {middle:.1}H{:.1}\"/><circle class=\"dot c0\" cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4.5\"/>",
                middle - 9.0,
                escape(&row.label),
                across(row.low),
                across(row.high),
                across(row.middle)
            )?;
            if let Some(goal) = row.goal {
                writeln!(
                    out,
                    "<path class=\"goal\" d=\"M{:.1} {:.1}V{:.1}\"/>",
                    across(goal),
                    middle - 7.0,
                    middle + 7.0
                )?;
            }
        }
        writeln!(out, "</svg>")?;
    }
    writeln!(out, "</figure>")
}
