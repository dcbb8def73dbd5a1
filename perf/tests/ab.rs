//! Proves `ringlog-perf ab` from outside on a small repository of its own, whose "client" prints the figures that its revision says: every answer has its
//! exit status and its files, and what fails leaves what was measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Prints figures with a little noise around `pace`, and does what `fault` says.
const CLIENT: &str = r#"#!/bin/sh
here=$(dirname "$0")
runs=$(($(cat "$2" 2>/dev/null || echo 0) + 1))
echo "$runs" >"$2"
. "$here/pace"
[ "$runs" != "${fails_at:-never}" ] || { echo "the client fell over"; exit 3; }
noise=$(($(od -An -N1 -tu1 /dev/urandom) * ${noise:-2} / 256))
# As wild as can be, and the same each time.
[ -z "$wild" ] || pace=$((pace * (1 << runs * runs * 37 % 11)))
echo "some progress"
echo "{\"records_per_s\": $((pace + noise)), \"ignored\": true}"
"#;

const SUBJECT: &str = r#"
name = "the client"
build = [["sh", "{source}/build"]]

[client]
measure = ["sh", "{source}/client", "--count", "{source}/../runs"]

[client.figures.records_per_s]
better = "higher"
"#;

struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    /// A repository with a commit, tagged, for each of `revisions`: a name and the text of its file `pace`.
    fn new(revisions: &[(&str, &str)]) -> Repository {
        let repository = Repository {
            folder: tempfile::tempdir().unwrap(),
        };
        repository.git(&["init", "--quiet"]);
        repository.write("client", CLIENT);
        repository.write("subject.toml", SUBJECT);
        for (name, pace) in revisions {
            repository.write("pace", pace);
            repository.write(
                "build",
                "grep -q . \"$(dirname \"$0\")/pace\" || { echo \"error: no pace\"; exit 1; }\n",
            );
            repository.git(&["add", "--all"]);
            repository.git(&["commit", "--quiet", "--allow-empty", "--message", name]);
            repository.git(&["tag", name]);
        }
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn git(&self, words: &[&str]) {
        let identity = [
            "-c",
            "user.name=Tester",
            "-c",
            "user.email=tester@localhost",
        ];
        let output = Command::new("git")
            .args(identity)
            .args(words)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn ab(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringlog-perf"))
            .arg("ab")
            .args(words)
            .args(["--subject", "subject.toml", "--folder", "built"])
            .args(["--json", "ab.json", "--markdown", "ab.md"])
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("ab.json")).unwrap()).unwrap()
    }

    fn markdown(&self) -> String {
        fs::read_to_string(self.path("ab.md")).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn slower_is_worse_faster_is_better_and_the_same_is_no_change() {
    let repository = Repository::new(&[
        ("slow", "pace=80000 noise=2000\n"),
        ("fast", "pace=100000 noise=2000\n"),
    ]);
    let worse = repository.ab(&["fast", "slow"]);
    assert_eq!(status(&worse), 1, "{}", said(&worse));
    assert_eq!(repository.json()["answer"], "worse");
    assert_eq!(repository.json()["runs"].as_array().unwrap().len(), 24);
    assert!(
        repository
            .markdown()
            .contains("**worse**: worse: records_per_s of client")
    );
    let better = repository.ab(&["slow", "fast"]);
    assert_eq!(status(&better), 0, "{}", said(&better));
    assert_eq!(repository.json()["answer"], "better");
    assert!(said(&better).contains("built before"), "{}", said(&better));
    let same = repository.ab(&["fast", "HEAD"]);
    assert_eq!(status(&same), 0, "{}", said(&same));
    assert_eq!(repository.json()["answer"], "no_change");
    assert!(repository.markdown().contains("the same commit"));
    assert_eq!(repository.json()["complete"], true);
}

#[test]
fn the_working_tree_is_a_revision() {
    let repository = Repository::new(&[("fast", "pace=100000\n")]);
    repository.write("pace", "pace=50000\n");
    let worse = repository.ab(&["HEAD", "."]);
    assert_eq!(status(&worse), 1, "{}", said(&worse));
    assert_eq!(
        fs::read_to_string(repository.path("pace")).unwrap(),
        "pace=50000\n"
    );
}

#[test]
fn noise_that_hides_everything_is_admitted() {
    let repository = Repository::new(&[("noisy", "pace=1000 wild=yes\n")]);
    let output = repository.ab(&["noisy", "noisy", "--seed", "7"]);
    assert_eq!(status(&output), 2, "{}", said(&output));
    let json = repository.json();
    assert_eq!(json["answer"], "cannot_tell");
    assert!(said(&output).contains("too noisy"), "{}", said(&output));
    // Not before it has been measured as long again.
    assert_eq!(json["runs"].as_array().unwrap().len(), 48);
    assert_eq!(json["figures"][0]["pairs"], 24);
    let again =
        "12 rounds of each workload asked for, as many again of what was doubtful then (client)";
    assert!(repository.markdown().contains(again));
    let output = repository.ab(&["noisy", "noisy", "--once", "--seed", "7"]);
    assert_eq!(status(&output), 2, "{}", said(&output));
    assert_eq!(repository.json()["runs"].as_array().unwrap().len(), 24);
}

#[test]
fn too_few_rounds_say_how_many_are_needed() {
    let repository = Repository::new(&[("slow", "pace=10\n"), ("fast", "pace=100\n")]);
    let output = repository.ab(&["fast", "slow", "--rounds", "3", "--once"]);
    assert_eq!(status(&output), 2, "{}", said(&output));
    assert!(
        said(&output).contains("at least 7 are needed"),
        "{}",
        said(&output)
    );
    assert!(repository.markdown().contains("3 pairs are too few"));
}

#[test]
fn a_second_look_tells_what_the_first_could_not() {
    let repository = Repository::new(&[("slow", "pace=10\n"), ("fast", "pace=100\n")]);
    let output = repository.ab(&["fast", "slow", "--rounds", "4"]);
    assert_eq!(status(&output), 1, "{}", said(&output));
    let json = repository.json();
    assert_eq!(json["answer"], "worse");
    assert_eq!(json["again"][0], "client");
    assert_eq!(json["figures"][0]["pairs"], 8);
}

#[test]
fn what_does_not_build_is_said_with_its_own_words() {
    let repository = Repository::new(&[("good", "pace=100\n"), ("bad", "\n")]);
    let output = repository.ab(&["good", "bad"]);
    assert_eq!(status(&output), 3);
    let said = said(&output);
    assert!(
        said.contains("bad (")
            && said.contains("does not build")
            && said.contains("error: no pace"),
        "{said}"
    );
    let output = repository.ab(&["good", "no-such-revision"]);
    assert_eq!(status(&output), 3);
    assert!(
        self::said(&output).contains("\"no-such-revision\" is no revision"),
        "{}",
        self::said(&output)
    );
}

#[test]
fn a_run_that_fails_leaves_what_was_measured_and_says_incomplete() {
    let repository = Repository::new(&[
        ("good", "pace=100000\n"),
        ("falls", "pace=100000 fails_at=5\n"),
    ]);
    let output = repository.ab(&["good", "falls"]);
    assert_eq!(status(&output), 3, "{}", said(&output));
    let json = repository.json();
    assert_eq!(json["complete"], false);
    assert!(
        json["problems"][0]
            .as_str()
            .unwrap()
            .contains("the client fell over"),
        "{}",
        json["problems"]
    );
    // The other rounds count: one failed, the figure still rests on eleven.
    assert_eq!(json["figures"][0]["pairs"], 11);
    assert!(repository.markdown().contains("INCOMPLETE"));
}

#[test]
fn a_client_that_never_runs_is_given_up_and_nothing_is_decided() {
    let repository = Repository::new(&[("falls", "pace=1 fails_at=$runs\n")]);
    let output = repository.ab(&["falls", "falls"]);
    assert_eq!(status(&output), 3, "{}", said(&output));
    let json = repository.json();
    let problems = json["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(
        problems[0]
            .as_str()
            .unwrap()
            .contains("ahead of the rounds")
    );
    assert!(problems[3].as_str().unwrap().contains("given up after 3"));
    assert_eq!(
        (&json["answer"], &json["complete"]),
        (&"cannot_tell".into(), &false.into())
    );
}

#[test]
fn a_self_check_counts_the_answers() {
    let repository = Repository::new(&[("same", "pace=100000 noise=2000\n")]);
    let check = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_ringlog-perf"))
            .args(["self-check", "--times", "3", "--rounds", "7"])
            .args(["--subject", "subject.toml", "--folder", "built"])
            .args(more)
            .current_dir(repository.folder.path())
            .output()
            .unwrap()
    };
    let output = check(&[]);
    assert_eq!(status(&output), 0, "{}", said(&output));
    let counted = "3 comparisons with itself: 3 no change, 0 cannot tell, 0 worse, 0 better";
    assert!(said(&output).contains(counted), "{}", said(&output));
    // A client that is measured has no broker that could be slowed, and to slow nothing would prove nothing.
    let nothing = check(&["--plant", "25"]);
    assert_eq!(status(&nothing), 3, "{}", said(&nothing));
    assert!(said(&nothing).contains("it has none"), "{}", said(&nothing));
}

#[test]
fn files_that_cannot_be_written_are_noticed_before_anything_runs() {
    let repository = Repository::new(&[("good", "pace=100\n")]);
    let output = Command::new(env!("CARGO_BIN_EXE_ringlog-perf"))
        .args([
            "ab",
            "good",
            "good",
            "--subject",
            "subject.toml",
            "--json",
            "no/such/folder/ab.json",
        ])
        .current_dir(repository.folder.path())
        .output()
        .unwrap();
    assert_eq!(status(&output), 3);
    assert!(
        said(&output).contains("cannot write results"),
        "{}",
        said(&output)
    );
    assert!(!Path::exists(&repository.path("target")));
}
