//! The generated pages: in step with what they are generated from, and true.

use recurve_tests::{conformance, numerics};

fn page(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The other tests hold every case to passing on every path, which is what the page says.
#[test]
fn conformance_is_up_to_date() {
    let text = conformance::document(|_| vec![true; 3]);
    assert!(page("conformance.md") == text, "docs/conformance.md is not up to date: run `cargo xtask docs`");
}

#[test]
fn numerics_is_up_to_date_and_every_bound_holds() {
    let blank = |text: &str| -> Vec<Vec<String>> {
        text.lines()
            .map(|l| {
                let mut columns: Vec<String> = l.split('|').map(|c| c.trim().to_owned()).collect();
                // The worst error of another machine differs.
                if columns.len() == 8 {
                    columns[5].clear();
                }
                columns
            })
            .collect()
    };
    let text = numerics::document(numerics::Row::worst_seen);
    assert!(blank(&page("numerics.md")) == blank(&text), "docs/numerics.md is not up to date: run `cargo xtask docs`");
}
