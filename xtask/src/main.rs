//! Tasks of the project. `cargo xtask` lists them.

mod arrows;
mod bench;
mod demo;
mod dist;
mod footprint;
mod fuzz;
mod idle;
mod images;
mod install;
mod interop;
mod python;
mod release;
mod small;
mod steps;
mod test;
mod world;

use std::process::ExitCode;

use postern_testkit::say;

const USAGE: &str = "\
cargo xtask demo [--builtin-ssh] [--verbose] [-- COMMAND...]
                                     a device without an open port on this machine, and an ssh session into it
cargo xtask test                     everything CI runs
cargo xtask install                  what the tests need and this machine lacks
cargo xtask interop [ARGS...]        published programs of others against ours; --help says more
cargo xtask bench [ARGS...]          the figures, and the rivals beside them
cargo xtask idle [--minutes N]       what an idle device costs: bytes on its wire, by kind, and the month's sum
cargo xtask footprint [--quick]      size and memory of the device build, beside what is promised
cargo xtask dist [ARGS...]           static builds, packages, checksums, bills of materials; --help says more
cargo xtask package ARGS...          packages and images of a binary that is built; --help says more
cargo xtask images [ARGS...]         the images in real containers, and a session through one that ends on the host
cargo xtask arrows                   which crate may use which
cargo xtask fuzz [TARGET [SECONDS]]  search for inputs that break a parser
cargo xtask world [--openings] [--runs N] [--seed S]  both ends and an attacker in virtual time, one schedule a seed";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("", Default::default()),
    };
    let outcome = match task {
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "install" => install::for_tests().map(|()| ExitCode::SUCCESS),
        "interop" => interop::run(rest),
        "bench" => bench::run(rest),
        "idle" => idle::run(rest),
        "footprint" => footprint::run(rest),
        "images" => images::run_all(rest),
        "dist" => release::run(rest),
        "package" => dist::package(rest),
        "arrows" => arrows::run(),
        "fuzz" => fuzz::run(rest),
        "world" => world::run(rest),
        "" | "help" | "--help" => {
            say(format_args!("{USAGE}"));
            Ok(ExitCode::SUCCESS)
        }
        other => Err(anyhow::anyhow!("no task is called {other}\n{USAGE}")),
    };
    outcome.unwrap_or_else(|error| {
        say(format_args!("\nfailed: {error:#}"));
        ExitCode::FAILURE
    })
}
