use std::time::Duration;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::answer::Answer;
use super::draw::{Theme, draw, plain};
use super::model::{Flow, Key, Model, Page, SortBy};
use super::recorded;

/// What a replica says: what was recorded, but for what is set.
#[derive(Clone)]
struct Said {
    status: serde_json::Value,
    metrics: String,
}

impl Said {
    fn by(node: usize) -> Self {
        let mut said = Self {
            status: serde_json::from_str(recorded::STATUS).unwrap(),
            metrics: recorded::METRICS.to_owned(),
        };
        said.set("node", format!("r{node}"));
        for key in ["executed", "ordered", "durable"] {
            said.set(key, 5000);
        }
        said.set("stable", 4096);
        said.set("view", 4);
        said.set("operations", 100_000);
        said
    }

    fn set(&mut self, key: &str, value: impl Into<serde_json::Value>) {
        self.status[key] = value.into();
    }

    /// Changes each sample whose line begins so.
    fn sample(&mut self, start: &str, change: impl Fn(f64) -> f64) {
        let line = |line: &str| match line.rsplit_once(' ') {
            Some((name, value)) if name.starts_with(start) => {
                format!("{name} {}\n", change(value.parse().unwrap()))
            }
            _ => format!("{line}\n"),
        };
        self.metrics = self.metrics.lines().map(line).collect();
    }

    fn answer(&self) -> Result<Answer, String> {
        Answer::of(self.status.to_string().as_bytes(), Ok(self.metrics.as_bytes()))
    }
}

/// Four replicas that are asked once a second, and answer at once.
struct Watched {
    model: Model,
    said: Vec<Said>,
    /// Those that do not answer, and why.
    dead: Vec<Option<String>>,
    second: u64,
}

impl Watched {
    fn new() -> Self {
        let sources = (0..4).map(|node| (format!("r{node}"), format!("127.0.0.1:{}", 9464 + node)));
        let model = Model::new(
            "atlas-cluster".to_owned(),
            sources.collect(),
            Duration::from_secs(1),
        );
        Self {
            model,
            said: (0..4).map(Said::by).collect(),
            dead: vec![None; 4],
            second: 0,
        }
    }

    fn at(&self) -> Duration {
        Duration::from_secs(self.second)
    }

    /// All answer, and a second passes.
    fn round(&mut self) {
        for (node, said) in self.said.iter().enumerate() {
            let answer = self.dead[node].clone().map_or_else(|| said.answer(), Err);
            self.model
                .on_answer(Duration::from_secs(self.second), node, answer);
        }
        self.model.on_round(self.at());
        self.second += 1;
    }

    /// So many seconds under load: a thousand operations in ten decisions each, at whoever answers.
    fn work(&mut self, seconds: u64) {
        for _ in 0..seconds {
            for (node, said) in self.said.iter_mut().enumerate() {
                if self.dead[node].is_none() {
                    for (key, more) in [
                        ("operations", 1000),
                        ("executed", 10),
                        ("ordered", 10),
                        ("durable", 10),
                    ] {
                        let value = said.status[key].as_u64().unwrap() + more;
                        said.set(key, value);
                    }
                    said.sample("atlas_operations_executed_total", |value| value + 1000.0);
                    for part in ["bucket", "count", "sum"] {
                        said.sample(&format!("atlas_consensus_turn_seconds_{part}"), |value| {
                            value * 1.5
                        });
                    }
                }
            }
            self.round();
        }
    }

    fn events(&self) -> Vec<&str> {
        self.model
            .events
            .iter()
            .map(|event| event.text.as_str())
            .collect()
    }

    fn press(&mut self, keys: &[Key]) {
        for key in keys {
            assert_eq!(self.model.on_key(*key), Flow::Continue, "{key:?}");
        }
    }
}

fn drawn(model: &Model, width: u16, height: u16, has_colours: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(model, Theme { has_colours }, frame))
        .unwrap();
    terminal.backend().buffer().clone()
}

/// The lines of a picture.
fn picture(model: &Model, width: u16, height: u16) -> Vec<String> {
    let buffer = drawn(model, width, height, false);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

/// The line that begins so.
fn line_of<'a>(picture: &'a [String], start: &str) -> &'a str {
    let found = picture.iter().find(|line| line.trim_start().starts_with(start));
    found.unwrap_or_else(|| panic!("no {start} in\n{}", picture.join("\n")))
}

#[track_caller]
fn shows(picture: &[String], part: &str) {
    let all = picture.join("\n");
    assert!(all.contains(part), "no {part} in\n{all}");
}

#[test]
fn a_cluster_under_load_fits_80_columns_and_24_lines() {
    let mut watched = Watched::new();
    watched.work(5);
    assert_eq!(watched.events(), [""; 0], "nothing happened");
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let picture = picture(&watched.model, width, height);
        shows(
            &picture[..1],
            "n = 4, f = 1   view 4, r0 leads   4 of 4 ready   atlas-cluster",
        );
        shows(&picture[1..2], "1,000 op/s   decision 5,050");
        let leader = line_of(&picture, "r0*");
        for part in ["1000", "5050", "-954", "ordering"] {
            assert!(leader.contains(part), "{part}: {leader}");
        }
        for node in 1..4 {
            assert!(line_of(&picture, &format!("r{node} ")).ends_with("ordering"));
        }
        let turns = line_of(&picture, "consensus turn");
        assert!(turns.contains("µs") || turns.contains("ms"), "{turns}");
        shows(&picture, "none so far");
        shows(&picture[usize::from(height) - 1..], "q quit  s sort: node");
        // Five samples, at the right edge.
        let graph = &picture[4];
        assert!(
            graph.ends_with("████") && graph.trim_start().chars().count() <= 5,
            "{graph}"
        );
    }
}

#[test]
fn a_replica_that_is_lost_is_seen_at_once_and_the_others_go_on() {
    let mut watched = Watched::new();
    watched.work(3);
    watched.dead[2] = Some("Connection refused".to_owned());
    watched.work(12);
    let picture = picture(&watched.model, 80, 24);
    shows(&picture[..1], "3 of 4 ready");
    shows(&picture[1..2], "1,000 op/s");
    assert!(line_of(&picture, "r2 ").ends_with("no answer"));
    shows(
        &picture,
        "127.0.0.1:9466: Connection refused, for 11s, last seen at decision 5030",
    );
    assert_eq!(watched.events(), ["r2 does not answer: Connection refused"]);
    assert_eq!(watched.model.lag(2), None);
    watched.dead[2] = None;
    watched.work(1);
    assert_eq!(watched.events()[1..], ["r2 answers again"]);
    assert_eq!(watched.model.lag(2), Some(120));
}

#[test]
fn a_state_on_its_way_is_shown_from_its_beginning_to_its_end() {
    let mut watched = Watched::new();
    watched.work(2);
    let before = watched.said[3].clone();
    let phase = "receiving the state at 4096: 12 of 40 pieces, 3 MiB, from 3 donors, 1.2 MiB/s, 4 s left";
    let transfer = serde_json::json!({
        "pieces": 12, "pieces_of": 40, "bytes": 3 << 20, "donors": 3,
        "bytes_per_second": 1_258_291, "seconds_left": 4.0,
    });
    watched.said[3].set("transfer", transfer);
    watched.said[3].set("phase", phase);
    watched.said[3].set("executed", 100);
    for reason in ["transferring", "abstaining"] {
        let sample = format!("atlas_unready{{node=\"r0\",reason=\"{reason}\"");
        watched.said[3].sample(&sample, |_| 1.0);
    }
    watched.round();
    let overview = picture(&watched.model, 80, 24);
    let row = line_of(&overview, "r3 ");
    assert!(row.contains(" 4920 ") && row.ends_with("transferring"), "{row}");
    shows(
        &overview,
        "       also abstaining; state ███░░░░░░░ 12 of 40 pieces, 1.2MB/s, 4 s left",
    );
    assert_eq!(
        watched.events(),
        [
            "r3 receives a state, 40 pieces",
            "r3 is not ready: transferring, abstaining"
        ]
    );
    watched.press(&[Key::Down, Key::Down, Key::Down, Key::Enter]);
    let page = picture(&watched.model, 80, 24);
    shows(&page, "transferring, abstaining: receiving the state at 4096");
    shows(&page, "███░░░░░░░");
    shows(&page, "12 of 40 pieces, 1.2MB/s, 4 s left");
    watched.said[3] = before;
    watched.round();
    let events = watched.events();
    assert_eq!(events[2..], ["r3 receives no state any more", "r3 is ready"]);
}

#[test]
fn a_new_leader_is_told_once_most_replicas_are_in_its_view() {
    let mut watched = Watched::new();
    watched.work(2);
    watched.dead[0] = Some("no answer in time".to_owned());
    watched.said[1].set("view", 5);
    watched.work(1);
    assert_eq!(watched.model.leader().as_deref(), Some("r0"), "one alone is none");
    watched.said[2].set("view", 5);
    watched.work(1);
    watched.said[3].set("view", 5);
    watched.work(1);
    assert_eq!(
        watched.events(),
        ["r0 does not answer: no answer in time", "view 5: r1 leads"]
    );
    let picture = picture(&watched.model, 80, 24);
    shows(&picture[..1], "view 5, r1 leads");
    line_of(&picture, "r1* ");
}

#[test]
fn counters_that_begin_anew_with_a_restart_are_no_negative_rates() {
    let mut watched = Watched::new();
    watched.work(3);
    for said in &mut watched.said {
        said.set("operations", 7);
        said.sample("atlas_", |_| 0.0);
    }
    watched.round();
    for replica in &watched.model.replicas {
        assert_eq!(replica.operations_rate, None);
        assert!(replica.counter_rates.is_empty() && replica.history.iter().all(|rate| *rate <= 1000));
        assert!(replica.durations().iter().all(|(_, found)| found.count == 0.0));
    }
    assert_eq!(watched.model.throughput(), None);
    let restarted: Vec<String> = (0..4).map(|node| format!("r{node} was restarted")).collect();
    assert_eq!(watched.events(), restarted);
    shows(&picture(&watched.model, 80, 24)[1..2], "- op/s");
    watched.work(1);
    assert_eq!(watched.model.throughput(), Some(1000.0));
    assert_eq!(watched.events().len(), 4, "it is told once");
}

#[test]
fn what_a_replica_executes_to_catch_up_is_not_what_the_cluster_does() {
    let mut watched = Watched::new();
    watched.work(2);
    let behind = watched.said[3].status["operations"].as_u64().unwrap();
    watched.said[3].set("operations", behind + 50_000);
    watched.work(1);
    assert_eq!(watched.model.replicas[3].operations_rate, Some(51_000.0));
    assert_eq!(watched.model.throughput(), Some(1000.0));
    // Less than f+1 replicas are nobody's word.
    for node in 0..3 {
        watched.dead[node] = Some("gone".to_owned());
    }
    watched.work(1);
    assert_eq!(watched.model.throughput(), None);
}

#[test]
fn counters_that_should_stand_still_raise_an_alarm_when_they_move() {
    let mut watched = Watched::new();
    watched.work(2);
    watched.said[1].sample("atlas_divergences_total", |value| value + 2.0);
    watched.said[1].sample("atlas_unready{node=\"r0\",reason=\"abstaining\"", |_| 1.0);
    watched.work(2);
    assert_eq!(
        watched.events(),
        ["r1: divergences, 2 more", "r1 is not ready: abstaining"]
    );
}

#[test]
fn a_peer_that_misbehaves_is_named_with_whom_it_lied_to() {
    let mut watched = Watched::new();
    watched.work(2);
    watched.said[1].sample("atlas_peer_offences_total{node=\"r0\",peer=\"r2\"}", |value| {
        value + 3.0
    });
    watched.work(2);
    assert_eq!(watched.events(), ["r2 misbehaves: 3 more refused by r1"]);
}

#[test]
fn one_that_was_asked_long_ago_and_says_nothing_at_all_is_lost() {
    let mut watched = Watched::new();
    watched.work(1);
    for second in 1..20 {
        let at = Duration::from_secs(second);
        for node in 0..3 {
            watched.model.on_answer(at, node, watched.said[node].answer());
        }
        watched.model.on_round(at);
    }
    assert_eq!(watched.events(), ["r3 does not answer: no answer for 9 s"]);
}

#[test]
fn keys_sort_reverse_select_zoom_and_quit() {
    let mut watched = Watched::new();
    watched.said[2].set("executed", 6000);
    watched.dead[1] = Some("gone".to_owned());
    watched.work(2);
    assert_eq!(watched.model.order(), [0, 1, 2, 3]);
    watched.press(&[Key::Letter('r')]);
    assert_eq!(watched.model.order(), [3, 2, 1, 0]);
    watched.press(&[Key::Letter('r'), Key::Letter('s'), Key::Letter('s')]);
    assert_eq!(watched.model.sort_by, SortBy::Executed);
    assert_eq!(watched.model.order(), [2, 0, 3, 1]);
    shows(&picture(&watched.model, 80, 24)[23..], "sort: executed");
    watched.press(&[Key::Letter('s')]);
    assert_eq!(
        watched.model.order(),
        [1, 0, 3, 2],
        "who cannot be asked lags most"
    );
    watched.press(&[Key::Letter('s'); 3]);
    assert_eq!(watched.model.sort_by, SortBy::State);
    assert_eq!(watched.model.order()[0], 1);
    // The selection stays with its replica; it was the first.
    watched.press(&[Key::Letter('s'), Key::Down, Key::Down, Key::Up]);
    assert_eq!((watched.model.sort_by, watched.model.selected), (SortBy::Node, 1));
    watched.press(&[Key::Up, Key::Up, Key::Enter]);
    assert_eq!((watched.model.page, watched.model.selected), (Page::Replica, 0));
    let page = picture(&watched.model, 80, 24);
    shows(&page, "r0 at 127.0.0.1:9464   1000 op/s   ready");
    assert!(line_of(&page, "operations executed").contains("1000"));
    watched.press(&[Key::Down, Key::Down, Key::Escape]);
    assert_eq!(watched.model.page, Page::Cluster);
    watched.press(&[Key::Letter('?')]);
    shows(&picture(&watched.model, 80, 24), "Ctrl-C");
    watched.press(&[Key::Escape]);
    assert!(!watched.model.shows_help);
    for key in [Key::Escape, Key::Interrupt, Key::Letter('q')] {
        assert_eq!(watched.model.on_key(key), Flow::Quit);
    }
}

#[test]
fn a_pause_changes_nothing_but_what_is_seen_meanwhile() {
    let mut watched = Watched::new();
    watched.work(3);
    watched.press(&[Key::Letter('p')]);
    let before = picture(&watched.model, 80, 24);
    shows(&before[..1], "PAUSED");
    watched.work(30);
    assert_eq!(picture(&watched.model, 80, 24), before);
    watched.press(&[Key::Letter('p')]);
    watched.work(1);
    assert_eq!(watched.model.throughput(), Some(1000.0));
    assert_eq!(watched.events(), [""; 0], "nobody was lost");
}

#[test]
fn one_picture_is_plain_text() {
    let mut watched = Watched::new();
    watched.dead[1] = Some("Connection refused".to_owned());
    watched.work(2);
    let text = plain(&watched.model);
    assert!(
        text.lines()
            .all(|line| line.chars().count() <= 80 && line.trim_end() == line)
    );
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'));
    for part in [
        "1,000 op/s",
        "r0* ",
        "no answer",
        "Connection refused",
        "r3 ",
        "consensus turn",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

#[test]
fn there_are_no_colours_where_none_are_wanted() {
    let mut watched = Watched::new();
    watched.dead[1] = Some("gone".to_owned());
    watched.work(2);
    let colours = |has_colours| {
        let buffer = drawn(&watched.model, 80, 24, has_colours);
        let coloured = buffer
            .content
            .iter()
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        coloured.count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 0);
}

#[test]
fn many_replicas_scroll_with_the_selection() {
    let sources = (0..64).map(|node| (format!("r{node}"), String::new()));
    let mut model = Model::new("big".to_owned(), sources.collect(), Duration::from_secs(1));
    for node in 0..64 {
        model.on_answer(Duration::ZERO, node, Said::by(node).answer());
    }
    for _ in 0..100 {
        model.on_key(Key::Down);
    }
    assert_eq!(model.selected, 63);
    line_of(&picture(&model, 80, 24), "r63 ");
    shows(&picture(&model, 80, 24)[..1], "n = 64, f = 21");
}

#[test]
fn numbers_that_no_replica_has_are_drawn_all_the_same() {
    let mut watched = Watched::new();
    for said in &mut watched.said[1..] {
        for key in [
            "view",
            "executed",
            "durable",
            "stable",
            "operations",
            "replica_links",
            "client_links",
        ] {
            said.set(key, u64::MAX);
        }
        said.set("phase", "\u{202e}漢字\u{1b}[31m".repeat(100));
        let transfer = serde_json::json!({ "pieces": u64::MAX, "pieces_of": 1, "seconds_left": -1e300 });
        said.set("transfer", transfer);
        said.sample("atlas_", |_| 1e300);
    }
    watched.said[2].set("durable", 0);
    watched.round();
    watched.round();
    for key in [Key::Down, Key::Enter, Key::Letter('?')] {
        for (width, height) in [(80, 24), (120, 40)] {
            picture(&watched.model, width, height);
        }
        watched.press(&[key]);
    }
    plain(&watched.model);
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(Key::Up),
        Just(Key::Down),
        Just(Key::Enter),
        Just(Key::Escape),
        prop::sample::select(vec!['s', 'r', 'p', '?', 'x']).prop_map(Key::Letter),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Key(Key),
    Answer(usize, u64, u64),
    Silence(usize),
    Round,
    Draw(u16, u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any_key().prop_map(Step::Key),
        (0..5_usize, 0..50_u64, any::<u64>())
            .prop_map(|(node, executed, number)| Step::Answer(node, executed, number)),
        (0..5_usize).prop_map(Step::Silence),
        Just(Step::Round),
        (1..130_u16, 1..45_u16).prop_map(|(width, height)| Step::Draw(width, height)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_the_picture_is_drawn(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut watched = Watched::new();
        for (number, step) in steps.into_iter().enumerate() {
            let at = Duration::from_millis(100 * number as u64);
            match step {
                Step::Key(key) => drop(watched.model.on_key(key)),
                Step::Answer(node, executed, number) => {
                    let mut said = Said::by(node);
                    said.set("executed", executed);
                    said.set("operations", number);
                    said.set("view", number % 7);
                    watched.model.on_answer(at, node, said.answer());
                }
                Step::Silence(node) => watched.model.on_answer(at, node, Err("gone".to_owned())),
                Step::Round => watched.model.on_round(at),
                Step::Draw(width, height) => drop(picture(&watched.model, width, height)),
            }
            let rates = watched.model.replicas.iter().filter_map(|replica| replica.operations_rate);
            prop_assert!(rates.into_iter().all(|rate| rate >= 0.0));
        }
        plain(&watched.model);
    }
}
