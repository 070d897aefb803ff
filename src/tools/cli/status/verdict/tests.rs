use super::*;

const AA: Digest = Digest::from_bytes([0xaa; 32]);
const BB: Digest = Digest::from_bytes([0xbb; 32]);

fn facts(executed: u64) -> Facts {
    Facts {
        view: 2,
        ordered: executed,
        durable: executed,
        executed,
        stable: 50,
        links: 3,
        orders: true,
        phase: "ordering".into(),
        checkpoints: vec![(40, AA), (50, BB)],
        ..Facts::default()
    }
}

fn looks(node: &str) -> Looks {
    Looks {
        node: node.into(),
        first: Some(facts(100)),
        second: Ok(facts(140)),
    }
}

fn judged(change: impl Fn(&mut [Looks])) -> Health {
    let mut all: Vec<Looks> = ["r0", "r1", "r2", "r3"].into_iter().map(looks).collect();
    change(&mut all);
    judge(&all, Quorum::of(4).unwrap())
}

/// Changes both looks at a replica.
fn both(look: &mut Looks, change: impl Fn(&mut Facts)) {
    look.first.iter_mut().for_each(&change);
    look.second.iter_mut().for_each(&change);
}

type Change = fn(&mut [Looks]);

/// What happens to a cluster of four, the verdict, and what the finding says.
const TABLE: &[(Change, Verdict, usize, &str)] = &[
    (|_| (), Verdict::Ok, 1, ""),
    (
        |l| l.iter_mut().for_each(|l| l.second = Ok(facts(100))),
        Verdict::Ok,
        1,
        "",
    ),
    (
        |l| l[3].second = Err("gone".into()),
        Verdict::Degraded,
        0,
        "does not answer: gone",
    ),
    (|l| l[3].first = None, Verdict::Ok, 1, ""),
    (
        |l| both(&mut l[3], |f| f.links = 1),
        Verdict::Degraded,
        0,
        "linked with 1",
    ),
    (
        |l| both(&mut l[3], |f| f.runs_twice = true),
        Verdict::Degraded,
        0,
        "runs twice",
    ),
    // A full disk: it shows in one of the looks, or only by its standing still.
    (
        |l| l[3].first.as_mut().unwrap().waits_for_space = true,
        Verdict::Degraded,
        0,
        "no space",
    ),
    (
        |l| l[3].second.as_mut().unwrap().waits_for_space = true,
        Verdict::Degraded,
        0,
        "no space",
    ),
    (
        |l| both(&mut l[3], |f| f.executed = 99),
        Verdict::Degraded,
        0,
        "stands still, 1 decisions behind",
    ),
    (
        |l| both(&mut l[3], |f| f.durable = 90),
        Verdict::Degraded,
        0,
        "its disk",
    ),
    // Behind, and on its way.
    (|l| l[3].first = Some(facts(60)), Verdict::Ok, 1, ""),
    (
        |l| {
            l[3].first = Some(facts(60));
            l[3].second = Ok(facts(90));
        },
        Verdict::Ok,
        1,
        "",
    ),
    // Behind what the others still have.
    (
        |l| {
            both(&mut l[3], |f| (f.executed, f.stable, f.transfers) = (10, 0, true));
            l[3].second.as_mut().unwrap().executed = 11;
        },
        Verdict::Degraded,
        0,
        "89 decisions behind",
    ),
    (
        |l| both(&mut l[2], |f| f.transfers = true),
        Verdict::Degraded,
        0,
        "not all",
    ),
    (
        |l| l[2].second.as_mut().unwrap().transfers = true,
        Verdict::Ok,
        1,
        "",
    ),
    (
        |l| l[2].second.as_mut().unwrap().abstains = true,
        Verdict::Degraded,
        0,
        "votes for nothing",
    ),
    // Views: who is alone in one takes no part; all between two do not serve; all that went on in a new
    // one do.
    (
        |l| both(&mut l[1], |f| f.view = 3),
        Verdict::Degraded,
        0,
        "is in view 3",
    ),
    (
        |l| {
            l.iter_mut().for_each(|l| {
                both(l, |f| {
                    (f.executed, f.ordered, f.durable, f.orders) = (100, 100, 100, false)
                });
            });
        },
        Verdict::Stalled,
        0,
        "is in view 2",
    ),
    (
        |l| {
            l.iter_mut().for_each(|l| {
                l.second = Ok(Facts {
                    view: 3,
                    ..facts(100)
                });
            });
        },
        Verdict::Stalled,
        0,
        "is in view 3",
    ),
    (
        |l| {
            l.iter_mut().for_each(|l| {
                l.second = Ok(Facts {
                    view: 3,
                    ..facts(140)
                });
            });
        },
        Verdict::Ok,
        1,
        "",
    ),
    // States.
    (
        |l| both(&mut l[3], |f| f.checkpoints = vec![(40, AA), (50, AA)]),
        Verdict::Diverged,
        0,
        "another checkpoint at 50",
    ),
    // At other places.
    (
        |l| both(&mut l[3], |f| f.checkpoints = vec![(40, AA), (45, AA), (50, BB)]),
        Verdict::Diverged,
        0,
        "another checkpoint at 45",
    ),
    // Two and two.
    (
        |l| {
            l[2..]
                .iter_mut()
                .for_each(|l| both(l, |f| f.checkpoints = vec![(41, AA), (49, BB)]))
        },
        Verdict::Diverged,
        0,
        "another checkpoint at",
    ),
    // One is not as far yet, began later, or took none.
    (
        |l| both(&mut l[3], |f| f.checkpoints = vec![(40, AA)]),
        Verdict::Ok,
        1,
        "",
    ),
    (
        |l| both(&mut l[3], |f| f.checkpoints = vec![(50, BB), (60, AA)]),
        Verdict::Ok,
        1,
        "",
    ),
    (|l| both(&mut l[3], |f| f.checkpoints.clear()), Verdict::Ok, 1, ""),
];

#[test]
fn the_verdict_says_what_happens_if_one_more_fails() {
    for (number, (change, verdict, tolerable, finding)) in TABLE.iter().enumerate() {
        let health = judged(change);
        let found = health.findings.join("; ");
        assert_eq!(
            (health.verdict, health.faults_tolerable),
            (*verdict, *tolerable),
            "row {number}: {found}"
        );
        match *finding {
            "" => assert_eq!(found, "", "row {number}"),
            part => assert!(found.contains(part), "row {number}: {found}"),
        }
    }
}

#[test]
fn two_that_are_gone_stall_a_cluster_of_four_and_two_and_two_states_leave_no_majority() {
    let health = judged(|looks| {
        looks[0].second = Err("gone".into());
        both(&mut looks[3], |facts| facts.links = 1);
    });
    assert_eq!((health.verdict, health.sound), (Verdict::Stalled, 2));
    let health = judged(|looks| {
        for look in &mut looks[2..] {
            both(look, |facts| facts.checkpoints = vec![(41, AA), (49, BB)]);
        }
    });
    assert_eq!((health.verdict, health.sound), (Verdict::Diverged, 2));
}

#[test]
fn of_a_cluster_that_was_asked_in_part_nothing_is_said_but_what_those_know_that_were_asked() {
    let part = |change: fn(&mut [Looks])| {
        let mut all: Vec<Looks> = ["r0", "r1"].into_iter().map(looks).collect();
        change(&mut all);
        judge(&all, Quorum::of(4).unwrap())
    };
    let health = part(|_| ());
    assert_eq!((health.verdict, health.code()), (Verdict::Unknown, 0));
    assert_eq!((health.asked, health.replicas), (2, 4));
    let health = part(|looks| both(&mut looks[1], |facts| facts.abstains = true));
    assert_eq!((health.verdict, health.code()), (Verdict::Unknown, 1));
    let health = part(|looks| {
        both(&mut looks[1], |facts| {
            facts.checkpoints = vec![(40, AA), (50, AA)]
        })
    });
    assert_eq!((health.verdict, health.code()), (Verdict::Diverged, 3));
}
