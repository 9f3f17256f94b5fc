//! What the plugins of TensorBoard read: scalars, texts, histograms and hyperparameters, as values of a `Summary`. Messages:
//! `Event`, `Summary` and `TensorProto` of `tensorboard/compat/proto/`, `HParamsPluginData` of
//! `tensorboard/plugins/hparams/plugin_data.proto`.

use super::Hyperparameter;
use super::wire::Message;

/// `data_type`s of TensorFlow's `types.proto`.
const DT_FLOAT: u64 = 1;
const DT_DOUBLE: u64 = 2;
const DT_STRING: u64 = 7;
/// Buckets of a histogram, as TensorBoard's own writer makes them.
const BUCKETS: usize = 30;

/// `Event { wall_time: 1, step: 2, … }`.
pub(super) fn event(time: f64, step: u64, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, time);
    event.integer(2, step);
    fill(&mut event);
    event.0
}

/// `Summary.Value { tag: 1, simple_value: 2 }`.
pub(super) fn scalar(summary: &mut Message, tag: &str, value: f32) {
    summary.message(1, |entry| {
        entry.bytes(1, tag.as_bytes());
        entry.float(2, value);
    });
}

/// `Summary.Value { tag: 1, tensor: 8, metadata: 9 }` for the `text` plugin: a tensor of one string.
pub(super) fn text(summary: &mut Message, tag: &str, value: &str) {
    summary.message(1, |entry| {
        entry.bytes(1, tag.as_bytes());
        entry.message(8, |tensor| {
            tensor.integer(1, DT_STRING);
            tensor.message(2, |shape| shape.message(2, |dimension| dimension.integer(1, 1)));
            tensor.bytes(8, value.as_bytes());
        });
        entry.message(9, |metadata| metadata.message(1, |plugin| plugin.bytes(1, b"text")));
    });
}

/// `Summary.Value { tag: 1, tensor: 8, metadata: 9 }` for the `histograms` plugin: a tensor `[buckets, 3]` of doubles, each row a
/// bucket's left edge, right edge and count. Writes nothing if there are no numbers.
pub(super) fn histogram(summary: &mut Message, tag: &str, numbers: &[f64]) {
    let rows = buckets(numbers);
    if !rows.is_empty() {
        histogram_of(summary, tag, &rows);
    }
}

/// A histogram of these buckets.
pub(super) fn histogram_of(summary: &mut Message, tag: &str, rows: &[[f64; 3]]) {
    summary.message(1, |entry| {
        entry.bytes(1, tag.as_bytes());
        entry.message(8, |tensor| {
            tensor.integer(1, DT_DOUBLE);
            tensor.message(2, |shape| {
                shape.message(2, |dimension| dimension.integer(1, rows.len() as u64));
                shape.message(2, |dimension| dimension.integer(1, 3));
            });
            let content: Vec<u8> = rows.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
            tensor.bytes(4, &content);
        });
        entry.message(9, |metadata| metadata.message(1, |plugin| plugin.bytes(1, b"histograms")));
    });
}

/// Equal buckets from the least to the greatest number, the last closed on both sides; one bucket of width 1 if all are equal.
/// Numbers that are not finite are left out.
fn buckets(numbers: &[f64]) -> Vec<[f64; 3]> {
    let finite: Vec<f64> = numbers.iter().copied().filter(|number| number.is_finite()).collect();
    let (Some(low), Some(high)) = (finite.iter().copied().reduce(f64::min), finite.iter().copied().reduce(f64::max))
    else {
        return Vec::new();
    };
    if low == high {
        return vec![[low - 0.5, low + 0.5, finite.len() as f64]];
    }
    let width = (high - low) / BUCKETS as f64;
    let edge = |index: usize| if index == BUCKETS { high } else { low + width * index as f64 };
    let mut rows: Vec<[f64; 3]> = (0..BUCKETS).map(|index| [edge(index), edge(index + 1), 0.0]).collect();
    for number in finite {
        rows[(((number - low) / width) as usize).min(BUCKETS - 1)][2] += 1.0;
    }
    rows
}

/// `Summary.Value { tag: 1, tensor: 8, metadata: 9 }` for the `hparams` plugin: an empty tensor, and in the metadata
/// `HParamsPluginData { session_start_info: 3 { hparams: 1, start_time_secs: 5 } }`.
pub(super) fn hyperparameters(summary: &mut Message, values: &[(String, Hyperparameter)], time: f64) {
    let mut data = Message::default();
    data.message(3, |info| {
        for (name, value) in values {
            info.message(1, |entry| {
                entry.bytes(1, name.as_bytes());
                // `google.protobuf.Value`, one of several kinds: written even if it is 0.
                entry.message(2, |kind| match value {
                    Hyperparameter::Number(number) => kind.exact_double(2, *number),
                    Hyperparameter::Text(text) => kind.bytes(3, text.as_bytes()),
                    Hyperparameter::Truth(truth) => kind.boolean(4, *truth),
                });
            });
        }
        info.double(5, time);
    });
    summary.message(1, |entry| {
        entry.bytes(1, b"_hparams_/session_start_info");
        entry.message(8, |tensor| {
            tensor.integer(1, DT_FLOAT);
            tensor.message(2, |shape| shape.message(2, |_| ()));
        });
        entry.message(9, |metadata| {
            metadata.message(1, |plugin| {
                plugin.bytes(1, b"hparams");
                plugin.bytes(2, &data.0);
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_every_finite_number_once() {
        let rows = buckets(&[0.0, 1.0, 0.999_999, 0.5, f64::NAN, f64::INFINITY, 0.016]);
        assert_eq!((rows.len(), rows[0][0], rows[29][1]), (30, 0.0, 1.0));
        assert_eq!((rows[0][2], rows[15][2], rows[29][2]), (2.0, 1.0, 2.0));
        assert!(rows.windows(2).all(|pair| pair[0][1] == pair[1][0]));
        assert_eq!(buckets(&[2.0, 2.0]), [[1.5, 2.5, 2.0]]);
        assert!(buckets(&[f64::NAN]).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_number_is_lost(numbers in proptest::collection::vec(-1e300..1e300_f64, 1..200)) {
            let count: f64 = buckets(&numbers).iter().map(|row| row[2]).sum();
            proptest::prop_assert_eq!(count as usize, numbers.len());
        }
    }
}
