//! Reads `server.properties` text: Java's properties syntax as far as configuration files use it (comments, `=` or `:` or
//! blank as separator, backslash escapes and line continuation).

/// The pairs of a properties text, in order; later ones of the same key win with whoever collects them.
pub fn parse(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut logical = line.trim_start().to_string();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while ends_with_continuation(&logical) {
            logical.pop();
            logical.push_str(lines.next().unwrap_or("").trim_start());
        }
        pairs.push(split(&logical));
    }
    pairs
}

fn ends_with_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

fn split(line: &str) -> (String, String) {
    let mut key_end = line.len();
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if !escaped && (c == '=' || c == ':' || c.is_whitespace()) {
            key_end = at;
            break;
        }
        escaped = c == '\\' && !escaped;
    }
    let rest = line[key_end..].trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (unescape(&line[..key_end]), unescape(rest.trim()))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let decoded = u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32);
                out.push(decoded.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    //! The forms that real `server.properties` files use.
    use super::*;

    #[test]
    fn forms_of_a_line() {
        let text = "# note\n\na=1\n b : two words \nc three\nd\\ e=x\\u0041\n! no\nlong=a,\\\n   b\nempty=\nbackslash=C:\\\\x\n";
        let pairs = parse(text);
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("a", "1"),
                ("b", "two words"),
                ("c", "three"),
                ("d e", "xA"),
                ("long", "a,b"),
                ("empty", ""),
                ("backslash", "C:\\x")
            ]
        );
    }
}
