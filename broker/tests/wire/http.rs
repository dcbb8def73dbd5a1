//! The HTTP port as a person with a browser finds it.

use crate::support::{Broker, page};

#[test]
fn the_first_page_lists_those_that_are_there() {
    let (_broker, port) = Broker::start_with_http(&[]);
    let (status, first) = page(port, "/");
    assert_eq!(status, "200");
    let listed = first.lines().filter_map(|line| line.split(' ').next());
    let listed: Vec<&str> = listed.filter(|path| path.starts_with('/')).collect();
    assert_eq!(listed, ["/metrics", "/health/live", "/health/ready"]);
    for path in listed {
        let (status, text) = page(port, path);
        assert_eq!(status, "200", "{path}");
        assert!(!text.is_empty(), "{path}");
    }
    let (status, text) = page(port, "/nothing");
    assert_eq!(status, "404");
    assert!(text.contains("/ lists"), "{text}");
}
