//! Reports as one HTML file that needs nothing else: no network, no fonts, no library; readable on a phone, in the dark, by keyboard
//! and by ear.
//!
//! A [`Page`] gathers sections; [`chart`] draws; [`curves`] says what is drawn of runs; [`run`], [`compare`] and
//! [`search`] tell what was found. The page forbids itself to load anything, by its content security policy.

pub mod chart;
pub mod compare;
mod curves;
mod intervals;
pub mod run;
pub mod search;

use std::fmt::Write;

use crate::environment::Environment;
use crate::results::number;
use chart::Chart;

/// Items of a note that are read at once; the rest unfolds.
const NOTE_ITEMS_SHOWN: usize = 4;

/// Text for HTML content and attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// How something turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As hoped.
    Good,
    /// To be taken with care.
    Warn,
    /// Not as hoped.
    Bad,
    /// Neither.
    Plain,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
            Tone::Plain => "plain",
        }
    }
}

/// A short word in a coloured field; the word alone must say it.
pub fn badge(tone: Tone, word: &str) -> String {
    format!(
        "<span class=\"badge {}\">{}</span>",
        tone.class(),
        escape(word)
    )
}

/// A page that is being written.
pub struct Page {
    title: String,
    lead: String,
    sections: Vec<(String, String)>,
    body: String,
    charts: usize,
}

impl Page {
    /// An empty page.
    pub fn new(title: &str, lead: &str) -> Page {
        Page {
            title: title.into(),
            lead: lead.into(),
            sections: Vec::new(),
            body: String::new(),
            charts: 0,
        }
    }

    /// Adds HTML as it is.
    pub fn push(&mut self, html: &str) {
        self.body.push_str(html);
        self.body.push('\n');
    }

    /// Begins a section that the page's index leads to. `badge` is HTML.
    pub fn section(&mut self, heading: &str, badge: &str) {
        let id = format!("s{}", self.sections.len());
        let heading = escape(heading);
        self.push(&format!("<h2 id=\"{id}\">{heading} {badge}</h2>"));
        self.sections.push((id, heading));
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) {
        self.push(&format!("<p>{}</p>", escape(text)));
    }

    /// An identifier for the next figure.
    pub fn figure_id(&mut self) -> String {
        self.charts += 1;
        format!("f{}", self.charts)
    }

    /// Charts side by side where there is room.
    pub fn charts(&mut self, charts: &[Chart]) {
        let drawn: Vec<String> = charts
            .iter()
            .map(|chart| chart.html(&self.figure_id()))
            .filter(|html| !html.is_empty())
            .collect();
        if !drawn.is_empty() {
            self.push(&format!("<div class=\"charts\">{}</div>", drawn.join("\n")));
        }
    }

    /// Figures that are seen first: value and what it is.
    pub fn tiles(&mut self, tiles: &[(String, String)]) {
        let tile = |(value, what): &(String, String)| {
            format!(
                "<li><b>{}</b><span>{}</span></li>",
                escape(value),
                escape(what)
            )
        };
        let tiles: String = tiles.iter().map(tile).collect();
        self.push(&format!("<ul class=\"tiles\">{tiles}</ul>"));
    }

    /// Something to be told plainly; nothing where there are no `items`.
    pub fn note(&mut self, tone: Tone, heading: &str, items: &[String]) {
        if items.is_empty() {
            return;
        }
        let list = |items: &[String]| {
            let items: String = items
                .iter()
                .map(|item| format!("<li>{}</li>", escape(item)))
                .collect();
            format!("<ul>{items}</ul>")
        };
        let (first, rest) = items.split_at(items.len().min(NOTE_ITEMS_SHOWN));
        let rest = match rest {
            [] => String::new(),
            rest => format!(
                "<details><summary>and {} more</summary>{}</details>",
                rest.len(),
                list(rest)
            ),
        };
        self.push(&format!(
            "<div class=\"note {}\"><strong>{}</strong>{}{rest}</div>",
            tone.class(),
            escape(heading),
            list(first)
        ));
    }

    /// A table; cells are HTML, the first of each row is its head.
    pub fn table(&mut self, label: &str, heads: &[&str], rows: &[Vec<String>]) {
        let mut out = format!(
            "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table class=\"stack\"><thead><tr>",
            escape(label)
        );
        for head in heads {
            let _ = write!(out, "<th>{}", escape(head));
        }
        // The ends of cells and rows need not be written in HTML, nor what a head is the head of where that is plain from its place.
        out.push_str("<tbody>");
        for row in rows {
            out.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let _ = match index {
                    0 => write!(out, "<th>{cell}"),
                    // An empty cell is left out where rows are stacked on a narrow screen, so it must hold nothing.
                    _ => {
                        let head = escape(heads.get(index).copied().unwrap_or_default());
                        write!(out, "<td data-head=\"{head}\">{cell}")
                    }
                };
            }
        }
        out.push_str("</table></div>");
        self.push(&out);
    }

    /// What is there for those who look closer.
    pub fn details(&mut self, summary: &str, text: &str) {
        self.push(&format!(
            "<details><summary>{}</summary><pre tabindex=\"0\">{}</pre></details>",
            escape(summary),
            escape(text)
        ));
    }

    /// Where it ran and what made it.
    pub fn environment(&mut self, place: &Environment, client: &str, command: &str) {
        self.section("Where and how", "");
        let mut rows = vec![
            ("When", when(place.unix_time_s)),
            ("Tool", place.tool.clone()),
            ("Client of record", client.into()),
            ("Kernel", place.kernel.clone()),
            ("Processor", format!("{} × {}", place.cpus, place.cpu)),
            (
                "Memory",
                format!("{} GB", number(place.memory_bytes as f64 / 1e9)),
            ),
            ("Disk of the working folder", place.disk.clone()),
        ];
        if let Some(broker) = &place.broker_command {
            rows.push(("Broker", broker.clone()));
        }
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|(what, value)| vec![escape(what), escape(&value)])
            .collect();
        self.table("Environment", &["what", "found"], &rows);
        self.push(&format!(
            "<p>Made by:</p><pre tabindex=\"0\">{}</pre>",
            escape(command)
        ));
    }

    /// The whole page.
    pub fn finish(self) -> String {
        let index: String = self
            .sections
            .iter()
            .map(|(id, heading)| format!("<li><a href=\"#{id}\">{heading}</a></li>"))
            .collect();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>\n{css}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#found\">To what was found</a>\n\
             <header><h1>{title}</h1><p class=\"lead\">{lead}</p>\n<nav aria-label=\"Sections\"><ul>{index}</ul></nav></header>\n\
             <main id=\"found\">\n{body}</main>\n\
             <footer>Latency in an open loop runs from the moment a record was meant to be sent. MB and GB are 10⁶ and 10⁹ bytes. \
             Charts answer to pointer and arrow keys; this file loads nothing from elsewhere.</footer>\n\
             <script>\n{js}</script>\n</body>\n</html>\n",
            title = escape(&self.title),
            lead = escape(&self.lead),
            body = self.body,
            css = include_str!("page.css"),
            js = include_str!("page.js"),
        )
    }
}

/// Seconds since the Unix epoch as a date and time of day in UTC (days to civil date after Howard Hinnant).
fn when(unix_time_s: u64) -> String {
    let (days, second) = (unix_time_s / 86_400, unix_time_s % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    //! A page stands alone, and nothing that comes from outside becomes markup.
    use super::*;

    #[test]
    fn a_page_stands_alone() {
        let mut page = Page::new("A <b> & c", "lead");
        page.section("one", "");
        page.note(
            Tone::Bad,
            "Incomplete",
            &["<img src=x onerror=alert(1)>".into()],
        );
        page.note(Tone::Warn, "never seen", &[]);
        let html = page.finish();
        assert!(html.contains("<h1>A &lt;b&gt; &amp; c</h1>"));
        assert!(html.contains("href=\"#s0\"") && html.contains("id=\"s0\""));
        assert!(!html.contains("<img") && !html.contains("never seen"));
        for outside in ["http://", "https://", "src=\"", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(when(0), "1970-01-01 00:00 UTC");
        assert_eq!(when(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(when(1_798_761_599), "2026-12-31 23:59 UTC");
    }
}
