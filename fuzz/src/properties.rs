//! `server.properties`: Java's syntax, then the broker's table of keys.
//!
//! Pairs that were read and are written with everything escaped read the same; values are taken or refused with a reason, and
//! what was taken is taken again from what it became.

use crate::config::{BrokerConfig, keys, listener, properties};
use crate::{Choices, memory};

/// In an input's first byte: the rest is a value for the key that the second byte chooses.
const VALUE: u8 = b'\0';

/// See the module.
pub fn run(input: &[u8]) {
    if let Some([VALUE, rest @ ..]) = input.first_chunk::<1>().map(|_| input) {
        let mut choices = Choices::new(rest);
        let keys: Vec<&str> = keys::BROKER.iter().map(|key| key.name).collect();
        let key = keys[usize::from(choices.byte()) % keys.len()];
        if let Ok(value) = std::str::from_utf8(choices.rest()) {
            configure(vec![(key.to_owned(), value.to_owned())]);
        }
        return;
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    // Every line of one byte is a pair of two strings, in a list that grows by doubling.
    let pairs = memory::within(150 * text.len() + 4096, || properties::parse(text));
    let mut written = String::new();
    for (key, value) in &pairs {
        escape(key, &mut written);
        written.push('=');
        escape(value, &mut written);
        written.push('\n');
    }
    assert_eq!(properties::parse(&written), pairs);
    configure(pairs);
}

fn configure(pairs: Vec<(String, String)>) {
    match BrokerConfig::from_pairs(pairs.clone()) {
        Ok(config) => {
            for name in &config.ignored().unknown {
                assert!(keys::broker(name).is_none());
            }
            assert!(!config.log_dirs.is_empty() && !config.listeners.is_empty());
            for controller in &config.controller_listeners {
                assert!(!config.listeners.contains(controller));
                assert!(!config.advertised.contains(controller));
            }
            let text = join(&config.listeners);
            assert_eq!(
                listener::parse_list("listeners", &text).as_ref(),
                Ok(&config.listeners)
            );
            let set = pairs.iter().filter(|(name, _)| config.is_set(name));
            let again = set.map(|(name, _)| (name.clone(), config.get(name).to_owned()));
            let again = BrokerConfig::from_pairs(again).expect("values that were taken");
            assert_eq!(
                (again.node_id, again.log_dirs),
                (config.node_id, config.log_dirs)
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn join(listeners: &[listener::Listener]) -> String {
    let texts: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            out.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            if c.is_ascii_punctuation() {
                out.push('\\');
            }
            out.push(c);
        }
    }
}

/// A file with everything that files have, and a value for every key.
pub fn seeds() -> Vec<Vec<u8>> {
    let file = "# note\n\nnode.id=1\n process.roles : broker,controller \nlog.dirs data\\ 1,\\\n   data2\n! no\nd\\ e=x\\u0041\\n\nempty=\n\
                listeners=PLAINTEXT://127.0.0.1:9092,B://[::1]:9093\nlog.retention.hours=5\nhttp.listener=\nbackslash=C:\\\\x\n";
    let mut seeds = vec![file.as_bytes().to_vec()];
    for (number, key) in keys::BROKER.iter().enumerate() {
        seeds.push([&[VALUE, number as u8], key.default.as_bytes()].concat());
        if number % 8 == 0 {
            seeds.push(format!("{}={}\n{0} = 3\n", key.name, key.default).into_bytes());
        }
    }
    seeds
}
