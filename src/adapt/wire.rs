//! Protocol buffers as they lie in a file, field by field.

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// One field of a protocol buffer as it lies in the file.
pub struct Field<'a> {
    /// Which field it is.
    pub number: u32,
    /// Key, length and payload.
    pub raw: &'a [u8],
    /// What a length was written before; empty for numbers.
    pub payload: &'a [u8],
    /// The number, of a number; else 0.
    pub value: u64,
}

/// The fields of a message (<https://protobuf.dev/programming-guides/encoding/>).
pub fn fields(bytes: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
    const CUT: Malformed = Malformed("it ends in the middle of a field");
    let mut fields = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let key = varint(bytes, &mut at)?;
        let (mut payload, mut value): (&[u8], _) = (&[], 0);
        match key & 7 {
            0 => value = varint(bytes, &mut at)?,
            1 => at += 8,
            2 => {
                let length = varint(bytes, &mut at)?;
                let end = usize::try_from(length)
                    .ok()
                    .and_then(|length| at.checked_add(length));
                let end = end.filter(|&end| end <= bytes.len()).ok_or(CUT)?;
                payload = &bytes[at..end];
                at = end;
            }
            5 => at += 4,
            _ => return Err(Malformed("a field has an unknown type")),
        }
        let raw = bytes.get(start..at).ok_or(CUT)?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed("a field has no number"))?;
        fields.push(Field {
            number,
            raw,
            payload,
            value,
        });
    }
    Ok(fields)
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes
            .get(*at)
            .ok_or(Malformed("it ends in the middle of a number"))?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("a number is too long"))
}

/// Writes a field with a length before it.
pub fn put(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
