//! Wilson's interval for a success rate.

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a rate of which `successes` of `trials` were seen (Wilson 1927):
/// `(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)`. `[0, 1]` without trials.
pub fn wilson(successes: usize, trials: usize) -> [f64; 2] {
    if trials == 0 {
        return [0.0, 1.0];
    }
    let n = trials as f64;
    let p = successes as f64 / n;
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // The ends that are whole in the formula must not be 0.9999999999999999 after rounding.
    let low = if successes == 0 { 0.0 } else { ((centre - spread) / scale).max(0.0) };
    let high = if successes == trials { 1.0 } else { ((centre + spread) / scale).min(1.0) };
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_published_values() {
        // R's prop.test(7, 20, correct = FALSE) and statsmodels' proportion_confint(0, 10, method = "wilson").
        let [low, high] = wilson(7, 20);
        assert!((low - 0.181_192).abs() < 1e-5 && (high - 0.567_146).abs() < 1e-5, "{low} {high}");
        let [low, high] = wilson(0, 10);
        assert!(low.abs() < 1e-12 && (high - 0.277_533).abs() < 1e-5, "{high}");
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
        assert!((1..200).all(|n| wilson(n, n)[1] >= 1.0 && wilson(0, n)[0] <= 0.0));
    }
}
