//! Decompression of snappy blocks into a reused buffer.
//!
//! *Invariants:* nothing is allocated before the length that the block declares was found within the limit.
//!
//! *Not here:* framed snappy (remote write does not use it), what the bytes mean.

use super::DecodeError;

/// Decompresses `body` into the front of `buffer` and returns how many bytes are there.
///
/// `buffer` only grows, so that its bytes are zeroed once and not for every request.
pub(super) fn decompress(body: &[u8], limit: usize, buffer: &mut Vec<u8>) -> Result<usize, DecodeError> {
    let declared = snap::raw::decompress_len(body).map_err(DecodeError::Snappy)?;
    if declared > limit {
        return Err(DecodeError::TooLarge { declared, limit });
    }
    // Three bytes of a block make at most 64: what declares more lies, and is not worth its memory.
    if declared / 22 > body.len() {
        return Err(DecodeError::Inflated { declared, body: body.len() });
    }
    if buffer.len() < declared {
        buffer.resize(declared, 0);
    }
    snap::raw::Decoder::new().decompress(body, &mut buffer[..declared]).map_err(DecodeError::Snappy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_bytes_that_declare_four_gib_allocate_nothing() {
        let mut buffer = Vec::new();
        let error = decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f], 32 << 20, &mut buffer).unwrap_err();
        assert!(matches!(error, DecodeError::TooLarge { declared: 0xffff_ffff, .. }), "{error}");
        // Just inside the limit, but far more than five bytes can hold.
        let error = decompress(&[0x80, 0x80, 0x80, 0x0f, 0x00], 32 << 20, &mut buffer).unwrap_err();
        assert!(matches!(error, DecodeError::Inflated { .. }), "{error}");
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn a_block_of_zeroes_has_the_highest_ratio_and_passes() {
        let raw = vec![0u8; 1 << 20];
        let body = snap::raw::Encoder::new().compress_vec(&raw).unwrap();
        let mut buffer = Vec::new();
        assert_eq!(decompress(&body, 32 << 20, &mut buffer).unwrap(), raw.len());
        assert_eq!(buffer, raw);
    }

    #[test]
    fn refuses_truncated_and_empty_blocks() {
        let body = snap::raw::Encoder::new().compress_vec(b"hello hello hello hello").unwrap();
        let mut buffer = Vec::new();
        for cut in 0..body.len() {
            assert!(decompress(&body[..cut], 1 << 20, &mut buffer).is_err(), "{cut}");
        }
    }
}
