//! Standard base64 with padding, as JSON carries bytes. Reading takes text without padding too.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each character; 64 and more for those outside the alphabet.
static VALUES: [u8; 256] = {
    let mut values = [64; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};

/// Appends the text of some bytes.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    let digit = |bits: u32, place: u32| ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        out.push(digit(bits, 0));
        out.push(digit(bits, 1));
        out.push(if three.len() > 1 {
            digit(bits, 2)
        } else {
            b'='
        });
        out.push(if three.len() > 2 {
            digit(bits, 3)
        } else {
            b'='
        });
    }
}

/// Appends the bytes of some text; `None` when it is not base64.
pub(crate) fn decode(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let text = text.as_bytes();
    let padded = text.strip_suffix(b"=").unwrap_or(text);
    let digits = padded.strip_suffix(b"=").unwrap_or(padded);
    if digits.len() % 4 == 1 || (digits.len() != text.len() && !text.len().is_multiple_of(4)) {
        return None;
    }
    out.reserve(digits.len() / 4 * 3 + 2);
    for four in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in four {
            let value = VALUES[usize::from(*digit)];
            if value >= 64 {
                return None;
            }
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - four.len());
        let [_, a, b, c] = bits.to_be_bytes();
        out.extend_from_slice(&[a, b, c][..four.len() - 1]);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("\u{7ff}?>", "378/Pg=="),
        ] {
            let mut out = Vec::new();
            encode(bytes.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            for text in [text, text.trim_end_matches('=')] {
                let mut back = Vec::new();
                decode(text, &mut back).unwrap();
                assert_eq!(back, bytes.as_bytes());
            }
        }
        for text in [
            "Z", "Zg=", "Zg===", "Z===", "Zm9v=", "Zg==Zg==", "Z\n==", "Zm-v", "é",
        ] {
            assert!(decode(text, &mut Vec::new()).is_none(), "{text}");
        }
    }
}
