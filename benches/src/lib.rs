//! Measuring Recurve: the library behind `recurve bench` and the program `recurve-benches`.

#![forbid(unsafe_code)]

mod layers;
mod roofline;

pub use layers::{Case, Failure, Row, Ways, measure};
pub use roofline::Peaks;

/// The `q`-quantile of values, for example the median for 0.5.
///
/// # Panics
/// If there are no values.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    assert!(!values.is_empty(), "no values have no quantile");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!([0.0, 0.1, 0.5, 0.9, 1.0].map(|q| quantile(&values, q)), [1.0, 1.0, 3.0, 5.0, 5.0]);
        assert_eq!(quantile(&[7.0], 0.9), 7.0);
    }
}
