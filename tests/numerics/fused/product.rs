//! Products of matrices in `f32`, and what cuBLAS is called with for them.

use candle_core::{DType, Device, Tensor};
use gift_host::policy::fused::{Factor, Gemm, add_product, product};

use super::super::decoder::devices;
use super::super::emulator::TYPES;
use super::{assert_close, normal, tolerance, values};

const ROWS: usize = 9;
const INNER: usize = 70;
const COLUMNS: usize = 11;

/// A matrix that is stored by rows, by columns, in rows of a wider one, or in columns of a wider one.
fn stored(seed: u64, [rows, columns]: [usize; 2], dtype: DType) -> Vec<Tensor> {
    let plain = normal(seed, &[rows, columns], 1.0, dtype);
    let turned = normal(seed + 1, &[columns, rows], 1.0, dtype).t().unwrap();
    let wide = normal(seed + 2, &[rows + 2, columns + 5], 1.0, dtype);
    let part = wide.narrow(0, 1, rows).unwrap().narrow(1, 3, columns).unwrap();
    let wide = normal(seed + 3, &[columns + 4, rows + 6], 1.0, dtype);
    let turned_part = wide.narrow(0, 2, columns).unwrap().narrow(1, 5, rows).unwrap().t().unwrap();
    vec![plain, turned, part, turned_part]
}

fn expected(left: &Tensor, right: &Tensor) -> Vec<f64> {
    let (rows, inner) = left.dims2().unwrap();
    let columns = right.dim(1).unwrap();
    let (left, right) = (values(left), values(right));
    let sum = |row: usize, column: usize| (0..inner).map(|i| left[row * inner + i] * right[i * columns + column]).sum();
    (0..rows).flat_map(|row| (0..columns).map(move |column| sum(row, column))).collect()
}

#[test]
fn products_of_16_bits_keep_32() {
    for dtype in TYPES {
        // candle multiplies parts of wider matrices on no device.
        for left in &stored(1, [ROWS, INNER], dtype)[..2] {
            for right in &stored(7, [INNER, COLUMNS], dtype)[..2] {
                let (expected, sum) = (expected(left, right), normal(20, &[ROWS, COLUMNS], 1.0, DType::F32));
                let added: Vec<f64> = expected.iter().zip(values(&sum)).map(|(a, b)| a + b).collect();
                for device in devices() {
                    let there = |tensor: &Tensor| tensor.to_device(&device).unwrap();
                    let (left, right) = (&there(left), &there(right));
                    let found = product(left, right, DType::F32).unwrap();
                    assert_eq!(found.dtype(), DType::F32);
                    assert_close(&format!("{dtype:?}"), &values(&found), &expected, 1e-5);
                    let rounded = product(left, right, dtype).unwrap();
                    assert_eq!(rounded.dtype(), dtype);
                    assert_close("rounded", &values(&rounded), &expected, tolerance(dtype).max(1e-5));
                    let found = add_product(Some(there(&sum)), left, right).unwrap();
                    assert_close("added", &values(&found), &added, 1e-5);
                    assert_close("alone", &values(&add_product(None, left, right).unwrap()), &expected, 1e-5);
                }
            }
        }
    }
}

/// `C = op(A) op(B)` by columns, as the documentation of `cublasGemmEx` has it.
fn as_the_library(gemm: &Gemm, a: &[f64], b: &[f64]) -> Vec<f64> {
    let at = |values: &[f64], factor: Factor, row: usize, column: usize| {
        let (row, column) = if factor.is_transposed { (column, row) } else { (row, column) };
        assert!(row < factor.step, "a column is longer than the step to the next");
        values[row + column * factor.step]
    };
    let mut c = vec![0.0; gemm.m * gemm.n];
    for i in 0..gemm.m {
        for j in 0..gemm.n {
            c[i + j * gemm.m] = (0..gemm.k).map(|l| at(a, gemm.a, i, l) * at(b, gemm.b, l, j)).sum();
        }
    }
    c
}

/// All values of the matrix that a tensor is a part of, from the tensor's first one on.
fn memory(tensor: &Tensor) -> Vec<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else { panic!("not on the CPU") };
    let all: &[f32] = storage.as_slice().unwrap();
    all[layout.start_offset()..].iter().map(|&value| f64::from(value)).collect()
}

#[test]
fn the_library_is_called_with_what_lies_in_memory() {
    for (rows, inner, columns) in [(ROWS, INNER, COLUMNS), (1, 5, 4), (4, 1, 5), (5, 4, 1), (1, 1, 1)] {
        for left in stored(1, [rows, inner], DType::F32) {
            for right in stored(7, [inner, columns], DType::F32) {
                let gemm = Gemm::new(&left, &right).unwrap();
                let found = as_the_library(&gemm, &memory(&right), &memory(&left));
                assert_close(&format!("{gemm:?}"), &found, &expected(&left, &right), 1e-12);
            }
        }
    }
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let x = |dims: &[usize], dtype: DType| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
    assert!(Gemm::new(&x(&[2, 3], DType::F32), &x(&[4, 2], DType::F32)).is_err());
    assert!(Gemm::new(&x(&[2, 3], DType::F32), &x(&[3, 2], DType::F16)).is_err());
    let every_other = x(&[2, 3, 2], DType::F32).narrow(2, 0, 1).unwrap().squeeze(2).unwrap();
    assert!(Gemm::new(&every_other, &x(&[3, 2], DType::F32)).is_err());
    let sum = x(&[2, 2], DType::F32);
    assert!(add_product(Some(sum.clone()), &x(&[2, 3], DType::F32), &x(&[3, 4], DType::F32)).is_err());
    assert!(
        add_product(Some(sum.to_dtype(DType::F16).unwrap()), &x(&[2, 3], DType::F32), &x(&[3, 2], DType::F32)).is_err()
    );
}
