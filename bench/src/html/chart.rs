//! Line charts as SVG, each with a title, a description, and a table of the same figures beside it.
//!
//! A chart is drawn once: its lines in a drawing of [`SIDE`] by [`SIDE`] that stretches with the page, its letters beside them at places in percent, so that they
//! keep their size on a phone. Letters for which a narrow drawing has no room are marked, and left out there by the style sheet. Lines are told apart by colour, by dashes and by a legend. Nothing here knows what the figures mean.

use std::fmt::Write;

use super::{escape, number};

/// Points drawn per line at most; a longer series is gathered into as many stretches.
pub const POINTS_MAX: usize = 200;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By powers of ten.
    Log,
    /// By nines: percentiles, each further nine as wide as the one before.
    Nines,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How.
    pub scale: Scale,
}

/// One line and the table column of the same figures.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Name in legend and table.
    pub name: String,
    /// Which of the style sheet's colours and dashes.
    pub colour: usize,
    /// Points by growing x.
    pub points: Vec<(f64, f64)>,
    /// Paler lines behind it: the rounds of which it is the median.
    pub behind: Vec<Vec<(f64, f64)>>,
}

/// A level drawn across the chart, such as a limit.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where.
    pub value: f64,
    /// What it is.
    pub label: String,
}

/// A line chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Title.
    pub title: String,
    /// A sentence for those who cannot see it, and for those who can.
    pub about: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Lines.
    pub lines: Vec<Line>,
    /// Level across it.
    pub mark: Option<Mark>,
}

/// Length of a drawing's sides, in its own units: fine enough for any screen, and short to write.
pub(super) const SIDE: f64 = 1000.0;
/// Values worth a grid line across a wide drawing, and those of them that have letters in a narrow one.
const TICKS_WIDE: usize = 8;
const TICKS_NARROW: usize = 4;
/// Values worth a grid line upwards.
const TICKS_UP: usize = 5;

/// A place from 0 to 1 in a drawing's units.
pub(super) fn unit(place: f64) -> i64 {
    (place * SIDE).round() as i64
}

/// The same in percent, as letters and dots need it.
pub(super) fn share(place: f64) -> String {
    trimmed_to(place * 100.0, 1)
}

/// Letters under a drawing: those of its ticks, and the axis' label.
pub(super) fn across(x: Span, sign: &str, label: &str, out: &mut String) -> std::fmt::Result {
    write!(
        out,
        "<svg class=\"at mid\" y=\"100%\"><g transform=\"translate(0 16)\">"
    )?;
    let (wide, narrow) = (x.ticks(TICKS_WIDE), x.ticks(TICKS_NARROW));
    let texts = |ticks: &[(f64, String)], text| ticks.iter().any(|tick| tick.1 == text);
    // Steps of the two need not be multiples of each other; then every other one stays.
    let nested = narrow.iter().all(|tick| texts(&wide, tick.1.as_str()));
    for (index, (value, text)) in wide.iter().enumerate() {
        let left_out = match nested {
            true => !texts(&narrow, text.as_str()),
            false => index % 2 == 1,
        };
        let fine = if left_out { " class=\"fine\"" } else { "" };
        let at = share(x.place(*value));
        write!(out, "<text{fine} x=\"{at}%\">{text}{sign}</text>")?;
    }
    write!(
        out,
        "<text x=\"50%\" y=\"20\">{}</text></g></svg>",
        escape(label)
    )
}

/// Grid lines at the ticks of both axes, as one path.
pub(super) fn grid(x: Span, y: Option<Span>) -> String {
    let upright = x.ticks(TICKS_WIDE).into_iter();
    let upright = upright.map(|(value, _)| format!("M{} 0v1000", unit(x.place(value))));
    let level = y.into_iter().flat_map(|y| {
        let ticks = y.ticks(TICKS_UP).into_iter();
        ticks.map(move |(value, _)| format!("M0 {}h1000", unit(1.0 - y.place(value))))
    });
    upright.chain(level).collect()
}

/// A scale with its limits.
#[derive(Clone, Copy)]
pub(super) struct Span {
    scale: Scale,
    from: f64,
    to: f64,
}

/// How many nines a percentile has.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

impl Span {
    pub(super) fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Span> {
        let usable = |value: &f64| value.is_finite() && (scale != Scale::Log || *value > 0.0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(usable) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            return None;
        }
        let (from, to) = match scale {
            Scale::Nines => (0.0, nines(high).max(1.0)),
            Scale::Log => {
                let (from, to) = (low.log10(), high.log10());
                // A line along the frame's edge is hard to see, and a single value needs room around it.
                let room = ((to - from) * 0.06).max(0.08);
                (from - room, to + room)
            }
            Scale::Linear if high <= 0.0 => (0.0, 1.0),
            Scale::Linear => (0.0, high * 1.05),
        };
        Some(Span { scale, from, to })
    }

    fn inner(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-12).log10(),
            Scale::Nines => nines(value),
        }
    }

    /// From 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        ((self.inner(value) - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    fn powers(&self, steps: &[f64]) -> Vec<(f64, String)> {
        let decades = (self.from.floor() as i32)..=(self.to.ceil() as i32);
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|value| (self.from..=self.to).contains(&value.log10()))
            .map(|value| (value, plain(value)))
            .collect()
    }

    /// Values worth a grid line, with their text.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Nines => {
                let mut ticks = vec![(0.0, "0 %".to_string()), (50.0, "50 %".to_string())];
                let all = [
                    "90 %",
                    "99 %",
                    "99.9 %",
                    "99.99 %",
                    "99.999 %",
                    "99.9999 %",
                    "99.99999 %",
                ];
                for (nine, text) in (1i32..).zip(all) {
                    ticks.push((100.0 * (1.0 - 10f64.powi(-nine)), text.to_string()));
                }
                ticks.retain(|tick| nines(tick.0) <= self.to + 1e-9);
                if wanted < 6 && self.to > 2.5 {
                    ticks.retain(|tick| tick.0 != 50.0);
                }
                ticks
            }
            Scale::Log => {
                // The finest steps that are not too many; the coarsest where even they are.
                let choices: [&[f64]; 4] = [
                    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
                    &[1.0, 2.0, 5.0],
                    &[1.0, 3.0],
                    &[1.0],
                ];
                let fitting = choices.iter().map(|steps| self.powers(steps));
                let mut fitting = fitting.filter(|ticks| ticks.len() <= wanted);
                fitting.next().unwrap_or_else(|| self.powers(&[1.0]))
            }
            Scale::Linear => {
                let rough = (self.to - self.from) / wanted.max(1) as f64;
                let decade = 10f64.powf(rough.log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0];
                let step = steps
                    .iter()
                    .map(|one| one * decade)
                    .find(|&one| one >= rough);
                let step = step.unwrap_or(decade * 10.0);
                let count = ((self.to - self.from) / step) as u32;
                (0..=count)
                    .map(|index| self.from + f64::from(index) * step)
                    .map(|value| (value, plain((value / step).round() * step)))
                    .collect()
            }
        }
    }
}

/// A round value for an axis.
fn plain(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{}G", trimmed(value / 1e9)),
        size if size >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        size if size >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    trimmed_to(value, 4)
}

/// A series with at most [`POINTS_MAX`] points: `gather` makes one value of a stretch's values.
pub fn thinned(points: Vec<(f64, f64)>, gather: fn(&[f64]) -> f64) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points;
    }
    let stretch = points.len().div_ceil(POINTS_MAX);
    let gathered = points.chunks(stretch).map(|chunk| {
        let values: Vec<f64> = chunk.iter().map(|point| point.1).collect();
        (chunk[0].0, gather(&values))
    });
    gathered.collect()
}

/// Mean of a stretch: for throughput and CPU.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Largest of a stretch: for latency, whose peaks must stay visible.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// A logarithmic axis where values differ too much for a plain one.
pub fn scale_for(values: impl Iterator<Item = f64>) -> Scale {
    let positive: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let low = positive.iter().copied().fold(f64::INFINITY, f64::min);
    let high = positive.iter().copied().fold(0.0, f64::max);
    if high > low * 8.0 {
        Scale::Log
    } else {
        Scale::Linear
    }
}

impl Chart {
    fn everything(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let lines = self.lines.iter();
        lines.flat_map(|line| {
            line.points
                .iter()
                .chain(line.behind.iter().flatten())
                .copied()
        })
    }

    /// The figure as HTML, or nothing where there is nothing to draw. `id` must be its own in the page.
    pub fn html(&self, id: &str) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(id, &mut out);
        out
    }

    fn write(&self, id: &str, out: &mut String) -> std::fmt::Result {
        let marked = self.mark.as_ref().map(|mark| mark.value);
        let x = Span::over(self.x.scale, self.everything().map(|point| point.0));
        let y = Span::over(
            self.y.scale,
            self.everything().map(|point| point.1).chain(marked),
        );
        let (Some(x), Some(y)) = (x, y) else {
            return Ok(());
        };
        let log = |scale| {
            if scale == Scale::Log {
                ", logarithmic"
            } else {
                ""
            }
        };
        writeln!(
            out,
            "<figure class=\"chart\" id=\"{id}\"><figcaption><h4 id=\"{id}-t\">{}</h4><p id=\"{id}-d\">{}</p></figcaption>",
            escape(&self.title),
            escape(&self.about)
        )?;
        if self.lines.len() > 1 {
            write!(out, "<ul class=\"legend\">")?;
            for line in &self.lines {
                write!(
                    out,
                    "<li><i class=\"k{}\"></i>{}",
                    line.colour,
                    escape(&line.name)
                )?;
            }
            writeln!(out, "</ul>")?;
        }
        writeln!(
            out,
            "<p class=\"axis\">{}{}</p>",
            escape(&self.y.label),
            log(self.y.scale)
        )?;
        self.draw(id, x, y, out)?;
        writeln!(out, "<p class=\"readout\" aria-live=\"polite\"></p>")?;
        self.table(out)?;
        writeln!(out, "</figure>")
    }

    /// Every x that a line has a point at.
    fn places(&self) -> Vec<f64> {
        let mut places: Vec<f64> = self
            .lines
            .iter()
            .flat_map(|line| line.points.iter().map(|point| point.0))
            .collect();
        places.sort_by(f64::total_cmp);
        places.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
        places
    }

    fn draw(&self, id: &str, x: Span, y: Span, out: &mut String) -> std::fmt::Result {
        let places = self.places();
        let places: Vec<String> = places
            .iter()
            .map(|&at| unit(x.place(at)).to_string())
            .collect();
        write!(
            out,
            "<svg class=\"plot\" role=\"img\" tabindex=\"0\" aria-labelledby=\"{id}-t {id}-d\" data-x=\"{}\">",
            places.join(" ")
        )?;
        write!(
            out,
            "<svg viewBox=\"0 0 {SIDE} {SIDE}\" preserveAspectRatio=\"none\"><path class=\"grid\" d=\"{}\"/><path class=\"frame\" d=\"M0 0v1000h1000\"/>",
            grid(x, Some(y))
        )?;
        if let Some(mark) = &self.mark {
            let at = unit(1.0 - y.place(mark.value));
            write!(out, "<path class=\"mark\" d=\"M0 {at}h1000\"/>")?;
        }
        for line in &self.lines {
            for round in &line.behind {
                let (colour, path) = (line.colour, self.path(round, x, y));
                write!(out, "<path class=\"behind c{colour}\" d=\"{path}\"/>")?;
            }
        }
        for line in &self.lines {
            let (colour, path) = (line.colour, self.path(&line.points, x, y));
            write!(out, "<path class=\"line c{colour}\" d=\"{path}\"/>")?;
        }
        self.dots(x, y, out)?;
        write!(out, "</svg>")?;
        self.letters(x, y, out)?;
        writeln!(
            out,
            "<path class=\"cursor\" d=\"M0 0V246\" visibility=\"hidden\"/></svg>"
        )
    }

    /// What is written beside and on the drawing.
    fn letters(&self, x: Span, y: Span, out: &mut String) -> std::fmt::Result {
        write!(out, "<g class=\"end\" transform=\"translate(-6 4)\">")?;
        for (value, text) in y.ticks(TICKS_UP) {
            let at = share(1.0 - y.place(value));
            write!(out, "<text y=\"{at}%\">{text}</text>")?;
        }
        write!(out, "</g>")?;
        across(x, "", &self.x.label, out)?;
        if let Some(mark) = &self.mark {
            let at = share(1.0 - y.place(mark.value));
            write!(
                out,
                "<text class=\"label end\" x=\"100%\" y=\"{at}%\" dx=\"-2\" dy=\"-5\">{}</text>",
                escape(&mark.label)
            )?;
        }
        Ok(())
    }

    /// Points of a short line as dots: strokes of no length with round ends.
    fn dots(&self, x: Span, y: Span, out: &mut String) -> std::fmt::Result {
        for line in &self.lines {
            if line.points.len() > 12 || x.scale != Scale::Linear {
                continue;
            }
            let places = line.points.iter();
            let places = places.map(|&(at, up)| (unit(x.place(at)), unit(1.0 - y.place(up))));
            let dots: String = places.map(|(at, up)| format!("M{at} {up}h0")).collect();
            write!(out, "<path class=\"dots c{}\" d=\"{dots}\"/>", line.colour)?;
        }
        Ok(())
    }

    /// A line through points, each told by its distance to the one before.
    fn path(&self, points: &[(f64, f64)], x: Span, y: Span) -> String {
        let mut path = String::new();
        let mut last: Option<(f64, i64, i64)> = None;
        for &(at, value) in points {
            if self.y.scale == Scale::Log && value <= 0.0 {
                last = None;
                continue;
            }
            let (across, down) = (unit(x.place(at)), unit(1.0 - y.place(value)));
            // A second without samples breaks the line of a time series.
            let follows = last.filter(|last| x.scale != Scale::Linear || at - last.0 < self.gap());
            let _ = match follows {
                // A minus sign parts numbers as well as a space does.
                Some((_, from, up)) if down < up => write!(path, "l{}{}", across - from, down - up),
                Some((_, from, up)) => write!(path, "l{} {}", across - from, down - up),
                None => write!(path, "M{across} {down}"),
            };
            last = Some((at, across, down));
        }
        path
    }

    /// The longest distance between points that still belong together: several times the usual one.
    fn gap(&self) -> f64 {
        let steps = self
            .lines
            .iter()
            .flat_map(|line| line.points.windows(2).map(|pair| pair[1].0 - pair[0].0));
        let mut steps: Vec<f64> = steps.filter(|step| *step > 0.0).collect();
        steps.sort_by(f64::total_cmp);
        // Where points are few their distance says nothing: a sweep's rates are as far apart as they were asked for.
        match steps.get(steps.len() / 2) {
            Some(usual) if steps.len() > 6 => usual * 2.5,
            _ => f64::INFINITY,
        }
    }

    fn table(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "<details><summary>As a table</summary><div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table><thead><tr><th>{}",
            escape(&self.title),
            escape(&self.x.label)
        )?;
        for line in &self.lines {
            write!(out, "<th>{}", escape(&line.name))?;
        }
        writeln!(out, "<tbody>")?;
        for at in self.places() {
            let head = match self.x.scale {
                Scale::Nines => format!("{} %", percentile(at)),
                _ => plain(at),
            };
            // The ends of cells and rows need not be written in HTML, nor what a head is the head of where that is plain from its place.
            write!(out, "<tr><th>{head}")?;
            for line in &self.lines {
                let found = line.points.iter().find(|point| (point.0 - at).abs() < 1e-9);
                let text = found.map_or("–".to_string(), |point| number(point.1));
                write!(out, "<td>{text}")?;
            }
            writeln!(out)?;
        }
        writeln!(out, "</table></div></details>")
    }
}

/// A percentile with as many digits as it needs to be told from 100.
fn percentile(value: f64) -> String {
    let digits = (nines(value).ceil() as usize).clamp(1, 8);
    trimmed_to(value, digits)
}

fn trimmed_to(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    //! Scales put values where they belong, and a chart holds what a reader without sight or pointer needs.
    use super::*;

    fn axis(scale: Scale) -> Axis {
        Axis {
            label: "a < b".into(),
            scale,
        }
    }

    #[test]
    fn scales() {
        let span = Span::over(Scale::Nines, [0.0, 99.0].into_iter()).unwrap();
        assert!((span.place(90.0) - 0.5).abs() < 1e-9);
        let log = Span::over(Scale::Log, [1.0, 0.0, 100.0].into_iter()).unwrap();
        assert!(
            (log.place(10.0) - 0.5).abs() < 1e-9,
            "zero has no place on it"
        );
        assert!(Span::over(Scale::Log, [0.0].into_iter()).is_none());
        let linear = Span::over(Scale::Linear, [3.0, 9.0].into_iter()).unwrap();
        let ticks: Vec<String> = linear.ticks(5).into_iter().map(|tick| tick.1).collect();
        assert_eq!(ticks, ["0", "2", "4", "6", "8"]);
        assert_eq!(percentile(99.990_000_000_1), "99.99");
        assert_eq!(percentile(0.0), "0");
        let long: Vec<(f64, f64)> = (0..1000)
            .map(|at| (f64::from(at), f64::from(at % 7)))
            .collect();
        assert_eq!(thinned(long, largest).len(), POINTS_MAX);
    }

    #[test]
    fn a_chart_has_title_description_and_table() {
        let chart = Chart {
            title: "Latency <script>".into(),
            about: "How long it took.".into(),
            x: axis(Scale::Linear),
            y: axis(Scale::Linear),
            lines: vec![Line {
                name: "p99".into(),
                points: vec![(0.0, 1.5), (1.0, 0.0), (2.0, 3.0)],
                ..Default::default()
            }],
            mark: None,
        };
        let html = chart.html("one");
        assert!(html.contains("<h4 id=\"one-t\">Latency &lt;script&gt;</h4>"));
        assert!(html.contains("aria-labelledby=\"one-t one-d\""), "{html}");
        assert!(html.contains("<th>2<td>3.00"), "{html}");
        assert!(html.matches("tabindex=\"0\"").count() >= 2);
        assert!(html.contains("d=\"M0 524l476 476l476-952\""), "{html}");
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        let empty = Chart {
            lines: Vec::new(),
            ..chart
        };
        assert_eq!(empty.html("two"), "");
    }
}
