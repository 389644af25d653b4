//! The generated pages agree with their sources.

use recurve_tests::{conformance, numerics};
use std::process::Command;

fn page(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The cells of all tables with one column left empty.
fn without_column(text: &str, width: usize, column: usize) -> Vec<Vec<String>> {
    let mut blanked = 0;
    let lines = text
        .lines()
        .map(|l| {
            let mut cells: Vec<String> = l.split('|').map(|c| c.trim().to_owned()).collect();
            // A line `| a | b |` is split into an empty part before and one after its cells.
            if cells.len() == width + 2 && !cells[column + 1].starts_with("--") {
                cells[column + 1].clear();
                blanked += 1;
            }
            cells
        })
        .collect();
    assert!(blanked > 10, "the page has lost its tables");
    lines
}

/// All cases run again here, in a separate process with its own tuning file.
#[test]
fn conformance_is_what_came_of_the_cases() {
    let folder = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_recurve-conformance"))
        .arg("page")
        .arg(folder.path())
        .env("RECURVE_TUNING_FILE", folder.path().join("tuning.tsv"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}\n{said}", out.status);
    let text = std::fs::read_to_string(folder.path().join("conformance.md")).unwrap();
    let tuned = std::fs::read_to_string(folder.path().join("tuning.tsv")).unwrap();
    assert!(tuned.lines().count() > 2, "nothing was measured:\n{tuned}");
    let (columns, grid) = (2 + conformance::PATHS.len(), 2 + conformance::GRID);
    assert!(
        without_column(&page("conformance.md"), columns, grid) == without_column(&text, columns, grid),
        "docs/conformance.md is not up to date: run `cargo xtask docs`"
    );
}

/// A failing case appears on the page and in the list of failures.
#[test]
fn a_failing_case_shows() {
    use recurve_tests::onnx::CaseError;
    let mut cases = recurve_tests::parity::cells();
    let case = cases.remove(0);
    let framework = "papers";
    let failed = || Some(Err(CaseError::Failed("wrong numbers".into())));
    let run =
        conformance::Run { framework, case, outcomes: [Some(Ok(0.0)), failed(), None, None, Some(Ok(0.0)), None] };
    let runs = [run];
    assert!(conformance::document(&runs).contains("| all | papers | 1 of 1 | 0 of 1 |  |  | 1 of 1 |  |"));
    let [line] = &conformance::failures(&runs)[..] else { panic!("one path failed") };
    assert!(line.contains(&runs[0].case.name) && line.contains("`scan`") && line.contains("wrong numbers"), "{line}");
}

/// Every row is measured, and a row that exceeds its bound panics with its name. The measured values differ between
/// machines, so the page only has to contain values within the bounds.
#[test]
fn numerics_is_up_to_date_and_every_bound_holds() {
    let text = numerics::document(numerics::Row::worst_seen);
    let page = page("numerics.md");
    assert!(
        without_column(&page, 6, 4) == without_column(&text, 6, 4),
        "docs/numerics.md is not up to date: run `cargo xtask docs`"
    );
    let rows: Vec<Vec<&str>> =
        page.lines().map(|l| l.split('|').map(str::trim).collect()).filter(|c: &Vec<_>| c.len() == 8).collect();
    let measured = rows.iter().filter_map(|c| Some((c[4].parse::<f64>().ok()?, c[5].parse::<f64>().ok()?)));
    let measured: Vec<(f64, f64)> = measured.collect();
    assert_eq!(measured.len(), numerics::rows().len(), "a row does not have the table's columns");
    for (bound, worst) in measured {
        assert!(worst > 0.0 && worst <= bound, "the page says {worst} within {bound}");
    }
}
