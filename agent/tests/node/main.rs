//! The agent on the real kernel, as a process of its own that is killed and started again, with
//! the real keeper, against a coordinator of a few lines. Needs root, and says so.
//!
//! This binary has three roles: the keeper, the agent, and the runner of the tests below, which
//! understands what `cargo test` and `cargo nextest` say to a test binary.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod agent;
mod api;
mod attach;
mod bridge;
mod checks;
mod coordinator;
mod custom;
mod custom_attacks;
mod disk;
mod exec;
mod executor;
mod faults;
mod fetch;
mod group;
mod image;
mod launched;
mod life;
mod output;
mod recovery;
mod small_fs;
mod survival;
mod tracer;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "life::a_native_task_runs_to_its_end",
        life::a_native_task_runs_to_its_end,
    ),
    (
        "fetch::files_are_there_before_the_task",
        fetch::files_are_there_before_the_task,
    ),
    (
        "fetch::what_cannot_be_had_is_said",
        fetch::what_cannot_be_had_is_said,
    ),
    ("fetch::a_kill_ends_a_fetch", fetch::a_kill_ends_a_fetch),
    (
        "fetch::a_crash_leaves_nothing_half",
        fetch::a_crash_leaves_nothing_half,
    ),
    ("life::endings_say_why", life::endings_say_why),
    (
        "life::no_volume_shows_the_nodes_own_data",
        life::no_volume_shows_the_nodes_own_data,
    ),
    ("life::many_at_once", life::many_at_once),
    ("life::kills", life::kills),
    ("life::limits_are_enforced", life::limits_are_enforced),
    (
        "life::stopping_leaves_nothing",
        life::stopping_leaves_nothing,
    ),
    (
        "survival::tasks_outlive_the_agent",
        survival::tasks_outlive_the_agent,
    ),
    ("survival::damaged_files", survival::damaged_files),
    (
        "survival::another_cluster_may_not_touch_the_tasks",
        survival::another_cluster_may_not_touch_the_tasks,
    ),
    ("survival::the_keeper_dies", survival::the_keeper_dies),
    (
        "survival::kill_9_at_random_moments",
        survival::kill_9_at_random_moments,
    ),
    (
        "recovery::a_new_binary_takes_up_what_the_old_one_left",
        recovery::a_new_binary_takes_up_what_the_old_one_left,
    ),
    ("recovery::after_a_reboot", recovery::after_a_reboot),
    (
        "recovery::updates_wait_for_their_coordinator",
        recovery::updates_wait_for_their_coordinator,
    ),
    (
        "recovery::files_of_any_content",
        recovery::files_of_any_content,
    ),
    (
        "faults::a_death_at_any_step_leaves_nothing",
        faults::a_death_at_any_step_leaves_nothing,
    ),
    (
        "checks::the_unhealthy_are_killed",
        checks::the_unhealthy_are_killed,
    ),
    ("checks::every_kind_of_probe", checks::every_kind_of_probe),
    (
        "checks::probes_that_say_nothing_or_never_end",
        checks::probes_that_say_nothing_or_never_end,
    ),
    (
        "disk::what_is_over_is_ended_by_counting",
        disk::what_is_over_is_ended_by_counting,
    ),
    (
        "disk::who_parks_files_in_sockets_does_not_fill_the_disk",
        disk::who_parks_files_in_sockets_does_not_fill_the_disk,
    ),
    (
        "disk::the_kernel_refuses_what_is_too_much",
        disk::the_kernel_refuses_what_is_too_much,
    ),
    (
        "api::every_question_in_both_encodings",
        api::every_question_in_both_encodings,
    ),
    (
        "api::what_containers_use_is_told",
        api::what_containers_use_is_told,
    ),
    (
        "api::numbers_are_the_same_everywhere",
        api::numbers_are_the_same_everywhere,
    ),
    (
        "api::the_log_says_more_for_a_while",
        api::the_log_says_more_for_a_while,
    ),
    ("api::files_as_calls", api::files_as_calls),
    ("api::nonsense_and_strangers", api::nonsense_and_strangers),
    (
        "launched::nested_containers_live_in_a_task",
        launched::nested_containers_live_in_a_task,
    ),
    (
        "launched::launches_are_refused_in_words",
        launched::launches_are_refused_in_words,
    ),
    (
        "launched::standalone_containers_outlive_the_agent",
        launched::standalone_containers_outlive_the_agent,
    ),
    (
        "exec::output_status_and_refusals",
        exec::output_status_and_refusals,
    ),
    (
        "exec::a_flood_does_not_grow_memory",
        exec::a_flood_does_not_grow_memory,
    ),
    (
        "output::whoever_follows_loses_and_doubles_nothing",
        output::whoever_follows_loses_and_doubles_nothing,
    ),
    (
        "output::tricks_with_names_mislead_nobody",
        output::tricks_with_names_mislead_nobody,
    ),
    (
        "output::a_hole_is_said_and_never_passed_over",
        output::a_hole_is_said_and_never_passed_over,
    ),
    (
        "output::a_task_says_how_much_is_kept",
        output::a_task_says_how_much_is_kept,
    ),
    (
        "output::bytes_are_given_as_they_are",
        output::bytes_are_given_as_they_are,
    ),
    (
        "attach::terminals_in_both_formats",
        attach::terminals_in_both_formats,
    ),
    (
        "attach::input_ends_waits_and_never_piles_up",
        attach::input_ends_waits_and_never_piles_up,
    ),
    (
        "attach::who_leaves_takes_the_process_along",
        attach::who_leaves_takes_the_process_along,
    ),
    (
        "attach::several_watch_and_who_lags_is_cut_off",
        attach::several_watch_and_who_lags_is_cut_off,
    ),
    (
        "attach::what_is_not_to_be_had_is_refused",
        attach::what_is_not_to_be_had_is_refused,
    ),
    (
        "attach::a_task_with_a_terminal_is_attached_to",
        attach::a_task_with_a_terminal_is_attached_to,
    ),
    (
        "attach::members_of_groups_are_joined",
        attach::members_of_groups_are_joined,
    ),
    (
        "image::an_image_says_what_it_runs",
        image::an_image_says_what_it_runs,
    ),
    (
        "group::members_share_what_is_their_executors",
        group::members_share_what_is_their_executors,
    ),
    ("group::ends_of_members", group::ends_of_members),
    (
        "group::a_group_is_launched_whole_or_not_at_all",
        group::a_group_is_launched_whole_or_not_at_all,
    ),
    (
        "group::kills_have_their_grace",
        group::kills_have_their_grace,
    ),
    ("group::times_and_limits", group::times_and_limits),
    (
        "group::processes_are_shared_when_asked_for",
        group::processes_are_shared_when_asked_for,
    ),
    (
        "group::the_executor_or_its_keeper_dies",
        group::the_executor_or_its_keeper_dies,
    ),
    ("group::members_from_images", group::members_from_images),
    (
        "custom::tasks_below_an_executor_in_both_encodings",
        custom::tasks_below_an_executor_in_both_encodings,
    ),
    ("custom::ends_of_an_executor", custom::ends_of_an_executor),
    (
        "custom::an_executor_outlives_the_agent",
        custom::an_executor_outlives_the_agent,
    ),
    (
        "custom::what_was_not_heard_is_dropped",
        custom::what_was_not_heard_is_dropped,
    ),
    (
        "custom_attacks::calls_that_are_refused",
        custom_attacks::calls_that_are_refused,
    ),
    (
        "custom_attacks::nobody_speaks_for_another",
        custom_attacks::nobody_speaks_for_another,
    ),
    (
        "custom_attacks::floods_are_bounded",
        custom_attacks::floods_are_bounded,
    ),
    (
        "bridge::own_address_and_ports",
        bridge::own_address_and_ports,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("keeper") => {
            return gantry_isolation::keeper::main(args.into_iter().skip(1).map(Into::into));
        }
        Some("agent") => return agent::main(&args[1..]),
        Some("trace") => return tracer::main(&args[1..]),
        Some("executor") => return executor::main(&args[1..]),
        _ => {}
    }
    let flags = [
        "--exact",
        "--list",
        "--ignored",
        "--nocapture",
        "--format",
        "terse",
    ];
    let filters: Vec<&String> = args
        .iter()
        .filter(|arg| !flags.contains(&arg.as_str()) && !arg.starts_with('-'))
        .collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let chosen = |name: &str| {
        let hit = |f: &&String| {
            if has("--exact") {
                name == f.as_str()
            } else {
                name.contains(f.as_str())
            }
        };
        !has("--ignored") && (filters.is_empty() || filters.iter().any(hit))
    };
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| chosen(name)).collect();
    if has("--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests need root: they make containers"
    );
    let mut failed = Vec::new();
    for (name, test) in tests {
        println!("test {name} ...");
        let started = std::time::Instant::now();
        let passed = std::panic::catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!(
            "test {name} {} {:?}",
            if passed { "ok" } else { "FAILED" },
            started.elapsed()
        );
        if !passed {
            failed.push(name);
        }
    }
    drop(custom::COPY.lock().map(|mut copy| copy.take()));
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}
