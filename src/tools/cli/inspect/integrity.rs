use serde::Serialize;

use super::{DAMAGED, Damage, Directory, SOUND, mention_holder, snapshot};
use crate::runtime::storage::StorageError;
use crate::runtime::storage::survey::{LogSurvey, SuperblockCopy, Survey, SurveyedSnapshot};
use crate::smr::crypto::Chain;
use crate::smr::types::SeqNo;
use crate::tools::cli::CommandError;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Sound,
    /// As it may be after a crash.
    Mention,
    Damaged,
}

#[derive(Debug, Serialize)]
struct Finding {
    grade: Grade,
    subject: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

const LOG_REMEDY: &str = "what this replica promised may be lost: restore the file as it was, or replace the disk if it fails, give the \
                          replica a new key and reconfigure";
const SNAPSHOT_REMEDY: &str = "start the replica: it sets the file aside, and the state comes from the others; replace the disk if it fails";
const OLD_IMAGE_REMEDY: &str =
    "nothing depends on it: the next checkpoint removes it; replace the disk if this happens again";

fn finding(grade: Grade, subject: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding {
        grade,
        subject: subject.into(),
        found: found.into(),
        remedy: None,
    }
}

fn damaged(subject: impl Into<String>, error: &StorageError, remedy: &'static str) -> Finding {
    Finding {
        remedy: Some(remedy),
        ..finding(Grade::Damaged, subject, Damage::of(error).to_string())
    }
}

fn superblocks(survey: &Survey) -> Vec<Finding> {
    let copies = survey.copies().iter().enumerate();
    copies
        .map(|(number, copy)| {
            let subject = format!("superblock {number}");
            match copy {
                SuperblockCopy::Sound(superblock) => {
                    let found = format!("generation {}", superblock.generation);
                    finding(Grade::Sound, subject, found)
                }
                SuperblockCopy::Blank => finding(Grade::Sound, subject, "not written yet"),
                SuperblockCopy::Version(version) => {
                    let found = format!("of format version {version}; the other copy counts");
                    finding(Grade::Mention, subject, found)
                }
                SuperblockCopy::Damaged => {
                    let found = "torn or damaged; the other copy counts, and this one is written next";
                    finding(Grade::Mention, subject, found)
                }
            }
        })
        .collect()
}

fn log(log: &LogSurvey) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(tail) = &log.tail {
        let groups = tail.next_number - log.records.first().map_or(tail.next_number, |first| first.group);
        let found = format!(
            "{groups} groups and {} records in {} segments: checksums and chain fit",
            log.records.len(),
            tail.segments.len()
        );
        findings.push(finding(Grade::Sound, "log", found));
        if tail.torn {
            let found = "a group was being written when the replica stopped; nobody was promised anything, it is cut off";
            findings.push(finding(Grade::Mention, "log's end", found));
        }
    }
    let damage = log.damage.iter();
    findings.extend(damage.map(|error| damaged("log", error, LOG_REMEDY)));
    if log.damage.is_empty() {
        let (first, last) = (log.decisions().next(), log.decisions().last());
        let place = |decision: Option<&crate::runtime::storage::survey::LoggedRecord>| {
            decision
                .and_then(|decision| decision.content.place)
                .unwrap_or(SeqNo::ZERO)
        };
        let found = match first {
            Some(_) => format!(
                "{} to {}: one chain, every batch is there",
                place(first),
                place(last)
            ),
            None => "none in the log".to_owned(),
        };
        findings.push(finding(Grade::Sound, "decisions", found));
    }
    findings
}

fn snapshot(snapshot: &SurveyedSnapshot, log: &LogSurvey, named: SeqNo) -> Finding {
    let subject = format!("snapshot {}", snapshot.seq);
    if let Some(error) = &snapshot.damage {
        let remedy = if snapshot.seq == named {
            SNAPSHOT_REMEDY
        } else {
            OLD_IMAGE_REMEDY
        };
        return damaged(subject, error, remedy);
    }
    let decided: Option<Chain> = log
        .decisions()
        .find(|decision| decision.content.place == Some(snapshot.seq))
        .and_then(|decision| decision.content.chain);
    if decided.is_some_and(|chain| snapshot.head.is_some_and(|head| head.chain != chain)) {
        let what = "its chain is not that of the log's decisions up to it";
        let error = StorageError::damaged(&snapshot.path, 0, what);
        return damaged(subject, &error, SNAPSHOT_REMEDY);
    }
    let proof = match snapshot.claim.and_then(|claim| log.certificate(claim)) {
        Some(signers) => format!("; {} replicas signed its digest", signers.len()),
        None => String::new(),
    };
    let found = format!(
        "{} bytes: every piece is what the head covers{proof}",
        snapshot.bytes
    );
    finding(Grade::Sound, subject, found)
}

/// Every finding about a directory, and whether it has snapshots.
fn findings(survey: &Survey) -> Result<(Vec<Finding>, bool), StorageError> {
    let named = survey.superblock().snapshot;
    let seen = survey.log();
    let snapshots = snapshot::snapshots(survey)?;
    let mut findings = superblocks(survey);
    findings.extend(log(&seen));
    findings.extend(snapshots.iter().map(|found| snapshot(found, &seen, named)));
    if named > SeqNo::ZERO
        && snapshots.iter().all(|snapshot| snapshot.seq != named)
        && survey.holder().is_none()
    {
        let error = StorageError::damaged(&survey.path().join("images"), 0, "the snapshot is missing");
        findings.push(damaged(format!("snapshot {named}"), &error, SNAPSHOT_REMEDY));
    }
    Ok((findings, !snapshots.is_empty()))
}

pub(super) fn run(directory: &Directory) -> Result<u8, CommandError> {
    let survey = Survey::of(&directory.dir)?;
    let (findings, snapshots) = findings(&survey)?;
    let is_damaged = findings.iter().any(|finding| finding.grade == Grade::Damaged);
    let verdict = if is_damaged { "DAMAGED" } else { "SOUND" };
    if directory.json {
        let all = serde_json::json!({
            "verdict": verdict,
            "application": survey.superblock().application.to_string(),
            "in_use_by": survey.holder(),
            "findings": findings,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        mention_holder(&survey);
        for finding in &findings {
            let mark = match finding.grade {
                Grade::Sound => '✔',
                Grade::Mention => '!',
                Grade::Damaged => '✗',
            };
            println!("{mark} {:<14} {}", finding.subject, finding.found);
            if let Some(remedy) = finding.remedy {
                println!("  {:<14} → {remedy}", "");
            }
        }
        let of = survey.superblock();
        println!(
            "{verdict}: {} of cluster {}, which serves {}",
            of.node, of.cluster, of.application
        );
        if !is_damaged && snapshots {
            println!(
                "what the pieces of a snapshot mean is for the application to say: they were not read, only verified"
            );
        }
    }
    Ok(if is_damaged { DAMAGED } else { SOUND })
}
