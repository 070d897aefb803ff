//! What README and the pages for operators write can be typed as it stands: commands, options, environment
//! variables.

use std::path::Path;

use super::output;

const PAGES: &[&str] = &["README.md", "src/docs/operations.md"];

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The commands of a page's code blocks that begin with `atlas`, or with cargo's way of running it, as words
/// after that; comments, and lines that only name it to a shell or an engine, left out.
fn commands(page: &str) -> Vec<Vec<String>> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        let line = line.split(" #").next().unwrap_or_default().trim();
        let ways = ["sudo -u atlas atlas ", "cargo run --release -- ", "atlas "];
        let Some(rest) = ways.iter().find_map(|way| line.strip_prefix(way)) else {
            continue;
        };
        if is_code {
            found.push(rest.split_whitespace().map(str::to_owned).collect());
        }
    }
    found
}

/// The options among the words, without their values.
fn options(words: &[String]) -> impl Iterator<Item = &str> {
    words
        .iter()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.split('=').next().unwrap_or_default())
}

/// The subcommands that a line names: words until the first one that is none. `None` if the first is none.
fn help_of(words: &[String]) -> Option<(Vec<&str>, String)> {
    let mut path: Vec<&str> = Vec::new();
    let mut help = None;
    for word in words {
        let is_name = word
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter == '-');
        if word.starts_with('-') || !is_name {
            break;
        }
        let asked: Vec<&str> = path.iter().copied().chain([word.as_str(), "--help"]).collect();
        let said = output(&asked);
        let text = String::from_utf8(said.stdout).unwrap();
        let usage = format!(
            " {}",
            path.iter()
                .copied()
                .chain([word.as_str()])
                .collect::<Vec<_>>()
                .join(" ")
        );
        // An argument is answered with the help of the command before it.
        let is_command = text.lines().any(|line| {
            line.strip_prefix("Usage: atlas")
                .is_some_and(|rest| rest.starts_with(&usage))
        });
        if !said.status.success() || !is_command {
            break;
        }
        path.push(word);
        help = Some(text);
    }
    help.map(|help| (path, help))
}

/// What is wrong with a command that a page writes.
fn wrong(words: &[String]) -> Option<String> {
    let line = words.join(" ");
    let Some((path, help)) = help_of(words) else {
        return Some(format!("`atlas {line}`: there is no such command"));
    };
    let unknown = options(words).find(|option| {
        !help
            .split(|letter: char| letter.is_whitespace() || letter == ',')
            .any(|word| word == *option)
    })?;
    Some(format!(
        "`atlas {line}`: `atlas {}` has no {unknown}",
        path.join(" ")
    ))
}

#[test]
fn every_command_of_the_pages_exists_with_its_options() {
    let written: Vec<Vec<String>> = PAGES.iter().flat_map(|name| commands(&page(name))).collect();
    assert!(written.len() >= 10, "the pages show commands: {written:?}");
    let broken: Vec<String> = written.iter().filter_map(|words| wrong(words)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_command_that_does_not_exist_is_noticed() {
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    for line in [
        "started --config a.toml",
        "init --outlet cluster",
        "inspect log --nonsense d",
    ] {
        assert!(wrong(&words(line)).is_some(), "{line}");
    }
    for line in [
        "init --out cluster",
        "inspect integrity d",
        "config check r0.toml --json",
    ] {
        assert_eq!(wrong(&words(line)), None, "{line}");
    }
}

/// A newcomer can type `atlas` only where it has been put on the PATH.
#[test]
fn readme_says_how_atlas_gets_on_the_path_before_it_is_typed() {
    let readme = page("README.md");
    let typed = readme.find("\natlas ").expect("README types atlas");
    for way in ["cargo install --path .", "deploy/package", "deploy/image", "PATH"] {
        let put = readme.find(way).unwrap_or_else(|| panic!("README names {way}"));
        assert!(put < typed, "{way} comes after atlas is typed");
    }
}

#[test]
fn every_variable_that_the_binary_reads_is_documented() {
    let pages: String = PAGES.iter().map(|name| page(name)).collect();
    for variable in [
        "ATLAS_LOG",
        "NO_COLOR",
        "ATLAS_CONFIG",
        "ATLAS_COMMIT",
        "ATLAS_ENGINE",
    ] {
        assert!(
            pages.contains(&format!("`{variable}")),
            "{variable} is documented"
        );
    }
}
