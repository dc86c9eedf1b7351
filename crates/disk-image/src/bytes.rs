//! Numbers out of byte slices. What lies beyond the end of the slice reads as zero: callers check lengths first where
//! that matters, and no input can make these panic.

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut result = [0; N];
    let tail = bytes.get(at..).unwrap_or_default();
    for (target, source) in result.iter_mut().zip(tail) {
        *target = *source;
    }
    result
}

pub(crate) fn be_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

pub(crate) fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(crate) fn be_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

pub(crate) fn le_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(crate) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_both_orders_and_missing_bytes_are_zero() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(be_u16(&bytes, 1), 0x0203);
        assert_eq!(le_u16(&bytes, 1), 0x0302);
        assert_eq!(be_u32(&bytes, 4), 0x0506_0708);
        assert_eq!(le_u32(&bytes, 4), 0x0807_0605);
        assert_eq!(be_u64(&bytes, 0), 0x0102_0304_0506_0708);
        assert_eq!(le_u64(&bytes, 0), 0x0807_0605_0403_0201);
        assert_eq!(be_u32(&bytes, 6), 0x0708_0000);
        assert_eq!(le_u32(&bytes, 6), 0x0000_0807);
        assert_eq!(be_u64(&bytes, 8), 0);
        assert_eq!(le_u64(&bytes, usize::MAX), 0);
    }
}
