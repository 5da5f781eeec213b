//! Scripted destinations: whatever they do, no good event is lost, and every bad one is found.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The courier without its effects.
mod model;

use model::Model;

fn refusal() -> Heard {
    Heard::Refused { reason: "malformed".into() }
}

fn verdict(is_bad: bool) -> Verdict {
    if is_bad { Verdict::Refused { reason: "mapping".into() } } else { Verdict::Accepted }
}

fn forbidden() -> Heard {
    Heard::Blocked { error: "403 Forbidden".into(), hint: None, may_be_content: true }
}

/// Refuses every request that holds one of these.
fn refusing(bad: impl IntoIterator<Item = Seq>) -> impl FnMut(&[Seq], Duration) -> Heard {
    let bad: BTreeSet<Seq> = bad.into_iter().collect();
    move |events, _| {
        if events.iter().any(|seq| bad.contains(seq)) { refusal() } else { Heard::Accepted }
    }
}

#[test]
fn one_poison_among_many_is_one_dead_letter() {
    for poison in [1, 2, 250, 251, 499, 500] {
        let model = Model::new(500, 500, refusing([poison])).run();

        model.ends_with_dead([poison]);
        assert_eq!(model.blocks, 0);
        assert!(model.requests < 30, "{} requests", model.requests);
    }
}

#[test]
fn one_poison_that_is_told_item_by_item_costs_three_more_requests() {
    let each = |events: &[Seq], _| {
        let verdict = |seq: &Seq| match seq {
            77 => Verdict::Refused { reason: "mapping".into() },
            _ => Verdict::Accepted,
        };
        Heard::Each(events.iter().map(verdict).collect())
    };

    let model = Model::new(500, 500, each).run();

    model.ends_with_dead([77]);
    assert_eq!((model.requests, model.dead[0].1), (4, 4));
}

#[test]
fn what_is_to_be_sent_again_is_sent_again_alone() {
    let mut sent = Vec::new();
    let each = |events: &[Seq], _| {
        sent.push(events.to_vec());
        let is_first = sent.len() == 1;
        let verdict = |seq: &Seq| match seq {
            3 | 4 | 9 if is_first => Verdict::Retry { reason: "429".into() },
            _ => Verdict::Accepted,
        };
        Heard::Each(events.iter().map(verdict).collect())
    };

    Model::new(10, 10, each).run().ends_with_dead([]);

    assert_eq!(sent[1..], [vec![3, 4, 9]], "in one request");
}

#[test]
fn a_poison_alone_in_a_quiet_stream_waits_for_a_later_event_as_proof() {
    let mut model = Model::new(1, 500, refusing([1])).run();
    assert_eq!((model.dead.len(), model.fate.suspects(), model.blocks), (0, 1, 0));
    assert_eq!(model.requests, 1, "it is not asked about again and again");

    model.events = 2;
    model.go_on();

    model.ends_with_dead([1]);
}

#[test]
fn a_whole_batch_of_poison_is_found_out_by_one_later_event() {
    let model = Model::new(40, 5, refusing(1..=5)).run();

    model.ends_with_dead(1..=5);
    assert_eq!(model.blocks, 0);
}

#[test]
fn a_destination_that_refuses_everything_blocks_the_sink_and_takes_no_event() {
    let model = Model::new(5000, 500, |_: &[Seq], _| refusal()).run();

    assert!(model.dead.is_empty() && model.accepted.is_empty() && model.settled == 0);
    assert_eq!(model.blocks, 1);
    assert!(model.fate.suspects() <= 17);
    assert!(model.requests < 1100, "one request a probe: {}", model.requests);
    let block = model.fate.block().unwrap();
    assert!(block.error.ends_with("malformed"), "{block:?}");
    assert!(block.hint.as_ref().unwrap().contains("dead-letters accept --sink soc"), "{block:?}");
}

/// In a design that asked only once, 242 of 500 good events became dead letters here.
#[test]
fn a_destination_that_recovers_at_any_moment_gets_every_event() {
    for requests in 0..600 {
        let mut asked = 0;
        let recovers = move |_: &[Seq], _| {
            asked += 1;
            if asked > requests { Heard::Accepted } else { refusal() }
        };

        let model = Model::new(1000, 500, recovers).run();

        model.ends_with_dead([]);
    }
}

#[test]
fn a_destination_that_breaks_and_recovers_at_any_moment_gets_every_event() {
    for breaks in 0..40 {
        for lasts in [1, 2, 3, 5, 9, 20, 50, 200] {
            let mut asked = 0;
            let comes_and_goes = move |events: &[Seq], _| {
                asked += 1;
                let is_broken = asked > breaks && asked <= breaks + lasts;
                if is_broken || events.contains(&123) { refusal() } else { Heard::Accepted }
            };

            let model = Model::new(3000, 500, comes_and_goes).run();

            model.ends_with_dead([123]);
        }
    }
}

#[test]
fn every_second_back_end_may_be_broken() {
    for batch in [1, 2, 7, 500] {
        let mut asked = 0;
        let by_turns = move |_: &[Seq], _| {
            asked += 1;
            if asked % 2 == 0 { Heard::Accepted } else { refusal() }
        };

        let model = Model::new(1000, batch, by_turns).run();

        assert!(model.dead.is_empty(), "batches of {batch}: {:?}", model.dead);
    }
}

#[test]
fn a_firewall_that_forbids_one_event_does_not_stop_the_feed() {
    for poison in [1, 2, 600, 1000] {
        let firewall = move |events: &[Seq], _| {
            if events.contains(&poison) { forbidden() } else { Heard::Accepted }
        };

        let mut model = Model::new(1000, 500, firewall).run();
        model.events = 1001;
        model.go_on();

        assert!(model.blocks > 0, "it blocks first");
        model.ends_with_dead([poison]);
    }
}

#[test]
fn a_missing_permission_takes_no_event_however_long_it_is_missing() {
    let missing = |_: &[Seq], now| {
        if now < Duration::from_secs(20 * 3600) { forbidden() } else { Heard::Accepted }
    };

    let model = Model::new(1000, 500, missing).run();

    model.ends_with_dead([]);
    assert_eq!(model.blocks, 1);
}

#[test]
fn a_wrong_credential_never_makes_a_suspect() {
    let wrong = |_: &[Seq], _| Heard::Blocked {
        error: "401 Unauthorized".into(),
        hint: Some("renew it".into()),
        may_be_content: false,
    };

    let model = Model::new(1000, 500, wrong).run();

    assert_eq!((model.fate.suspects(), model.settled, model.blocks), (0, 0, 1));
    assert_eq!(model.fate.block().unwrap().hint.as_deref(), Some("renew it"));
}

#[test]
fn whatever_an_hour_of_refusals_says_nothing_is_lost() {
    let hour = |_: &[Seq], now: Duration| match now.as_secs() / 900 {
        0 => Heard::Blocked { error: "401".into(), hint: None, may_be_content: false },
        1 | 2 => forbidden(),
        3 => refusal(),
        _ => Heard::Accepted,
    };

    Model::new(3000, 500, hour).run().ends_with_dead([]);
}

/// Nine events of ten are fine; the others are of a type whose mapping broke.
fn of_broken_type(seq: Seq) -> bool {
    seq % 5 == 3
}

#[test]
fn a_mapping_that_broke_for_one_type_blocks_before_it_makes_dead_letters() {
    for by_item in [false, true] {
        let broken = move |events: &[Seq], now: Duration| {
            let is_bad = |seq: &Seq| of_broken_type(*seq) && now.as_secs() < 50_000;
            if by_item {
                Heard::Each(events.iter().map(|seq| verdict(is_bad(seq))).collect())
            } else if events.iter().any(is_bad) {
                refusal()
            } else {
                Heard::Accepted
            }
        };

        let model = Model::new(2000, 500, broken).run();

        model.ends_with_dead([]);
        assert_eq!(model.blocks, 1, "by item: {by_item}");
    }
}

#[test]
fn somebody_may_agree_to_what_is_refused() {
    let bad: Vec<Seq> = (1..=2000).filter(|seq| of_broken_type(*seq)).collect();
    let mut model = Model::new(2000, 500, refusing(bad.clone()));
    model.agrees_at = Some(Duration::from_secs(1000));

    model.run().ends_with_dead(bad);
}

#[test]
fn somebody_may_agree_even_when_all_is_refused() {
    let mut model = Model::new(300, 100, |_: &[Seq], _| refusal());
    model.agrees_at = Some(Duration::from_secs(1000));

    model.run().ends_with_dead(1..=300);
}

#[test]
fn an_event_that_makes_no_message_is_a_dead_letter_and_too_many_of_them_block() {
    let unencodable = |count: Seq| {
        move |events: &[Seq], _| match events {
            [seq] if *seq <= count => Heard::Unencodable { reason: "too deep".into() },
            _ => Heard::Accepted,
        }
    };

    Model::new(10, 1, unencodable(2)).run().ends_with_dead([1, 2]);
    let model = Model::new(100, 1, unencodable(50)).run();
    assert!(model.fate.block().is_some() && model.dead.len() <= 10, "{:?}", model.dead);
}

#[test]
fn what_may_be_there_already_is_sent_again_whole() {
    let mut fate = Fate::new("soc");
    let mut piece = Piece::new(1, 9, vec![1, 5, 9]);
    piece.is_doubtful = true;
    fate.send_again(piece.clone());
    let error = "401".to_owned();
    let blocked = Heard::Blocked { error, hint: None, may_be_content: false };

    let Step::Send(sent) = fate.step() else { panic!("it is sent") };
    fate.heard(sent, blocked, Duration::ZERO);

    let next = Piece::new(10, 10, vec![10]);
    assert_eq!(fate.probe(Some(next)), Some(piece), "with the same id");
}

proptest! {
    /// Of a destination that goes away twice, refusing everything meanwhile, while events go on coming.
    #[test]
    fn no_good_event_is_ever_a_dead_letter(
        bad in prop::collection::btree_set(1..400_u64, 0..9),
        batch in 1..60_u64,
        down in prop::collection::vec((0..400_u32, 1..40_u32), 0..3),
        by_item in any::<bool>(),
    ) {
        let mut asked = 0;
        let is_bad = bad.clone();
        let destination = move |events: &[Seq], _| {
            asked += 1;
            if down.iter().any(|(from, lasts)| asked > *from && asked <= from + lasts) {
                return refusal();
            }
            if by_item {
                let verdicts = events.iter().map(|seq| verdict(is_bad.contains(seq)));
                return Heard::Each(verdicts.collect());
            }
            if events.iter().any(|seq| is_bad.contains(seq)) { refusal() } else { Heard::Accepted }
        };

        let mut model = Model::new(5000, batch, destination);
        model.go_on_to(400);

        let dead: BTreeSet<Seq> = model.dead.iter().map(|(seq, _)| *seq).collect();
        prop_assert!(dead.is_subset(&bad), "{:?}", dead);
        prop_assert_eq!(dead.len(), model.dead.len());
        let accepted: BTreeSet<Seq> = model.accepted.iter().copied().collect();
        prop_assert_eq!(accepted.len(), model.accepted.len(), "none twice");
        prop_assert!(accepted.is_disjoint(&bad));
        if model.fate.block().is_none() {
            let missing = (1..=400).filter(|seq| !accepted.contains(seq) && !dead.contains(seq));
            prop_assert_eq!(missing.count(), 0);
        }
    }
}
