//! The bench works from end to end: few bytes, real processes.

use std::process::Command;

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_postern-bench"))
}

#[test]
fn the_floor_carries_bytes_and_is_charged_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let output = bench()
        .args(["run", "--quick", "--no-priority", "--only", "bulk", "--rows", "floor", "--bytes", "8388608", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = report["bulk"].as_array().unwrap();
    // Splice with either cipher, copy, and the product's own pump.
    assert_eq!(rows.len(), 4, "{rows:?}");
    for row in rows {
        assert!(row["down"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["up"]["median"].as_f64().unwrap() > 0.0, "{row}");
        for role in ["client", "relay", "device"] {
            assert!(row["cpu_by_role"][role]["median"].as_f64().is_some(), "{row}");
        }
    }
    // In words for humans too.
    assert!(String::from_utf8_lossy(&output.stdout).contains("floor: seal, splice, open"));
}

/// Without the rights to make namespaces the test says so and passes.
#[test]
fn the_line_takes_two_round_trips_to_connect_and_echo() {
    let output = bench().args(["line", "--delay-ms", "10"]).stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(why.contains("ip netns add") || why.contains("TUN"), "{why}");
        println!("skipped: {why}");
        return;
    }
    let took: f64 = said.split("connect and echo: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    // Two round trips of 20 ms; the upper bound only catches a line that is broken.
    assert!((40.0..400.0).contains(&took), "{said}");
}
