//! Finds the final answer in a solution text: the content of its last `\boxed{…}`. Does not interpret it.

/// The content of the last `\boxed{…}` (or `\fbox{…}`) whose braces balance, without surrounding space.
///
/// `\boxed 5` without braces gives its next word, as TeX would show it. A box inside the last box belongs to that one.
/// Escaped braces (`\{`) do not count. Takes time linear in the text.
pub fn extract_boxed(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    // A stack of open braces; a box is complete when the brace that opened it closes, so one pass finds them all.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut open_boxes = 0_usize;
    let mut last: Option<(usize, usize)> = None;
    let mut position = 0;
    while position < bytes.len() {
        match bytes[position] {
            b'\\' => {
                let rest = &text[position..];
                let name = ["\\boxed", "\\fbox"].into_iter().find(|name| rest.starts_with(name));
                if let Some(name) = name {
                    let after = &rest[name.len()..];
                    let content = after.trim_start();
                    let start = position + name.len() + (after.len() - content.len());
                    if content.starts_with('{') {
                        open.push((start + 1, true));
                        open_boxes += 1;
                        position = start + 1;
                        continue;
                    }
                    // `\boxedfoo` is another command; without the space nothing is looked for, which keeps it linear.
                    if after.len() > content.len() && open_boxes == 0 {
                        let ends = |c: char| c.is_whitespace() || c == '}';
                        let length = content.find(ends).unwrap_or(content.len());
                        let word = content[..length].trim_end_matches(['$', '.', ',']);
                        if !word.is_empty() {
                            last = Some((start, start + word.len()));
                        }
                    }
                    position += name.len();
                    continue;
                }
                position += 1; // the escaped character, which may be a brace
                position += rest[1..].chars().next().map_or(0, char::len_utf8);
                continue;
            }
            b'{' => open.push((position + 1, false)),
            b'}' => {
                if let Some((start, true)) = open.pop() {
                    open_boxes -= 1;
                    // A box that closes after another encloses or follows it: either way it is the later answer.
                    last = Some((start, position));
                }
            }
            _ => {}
        }
        position += 1;
    }
    last.map(|(start, end)| text[start..end].trim())
}
