//! The form of `user`: a name or a number, and after a colon perhaps a group, either again a name
//! or a number. Whether they exist only the container's own files say, when it starts.

/// Largest uid and gid; the next number means "no change" to the kernel (setresuid(2)).
const ID_MAX: u32 = u32::MAX - 1;
const FORM: &str = "must be a name or a number, such as 'app', '1000', '1000:1000' or 'app:staff'";
const RANGE: &str = "must name users and groups by numbers between 0 and 4294967294";

/// What is wrong with a `user`.
pub(super) fn unfit(user: &str) -> Option<&'static str> {
    match user.split_once(':') {
        Some((user, group)) => part(user).or_else(|| part(group)),
        None => part(user),
    }
}

fn part(part: &str) -> Option<&'static str> {
    let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let fits = part.parse::<u32>().is_ok_and(|id| id <= ID_MAX) && digits == part;
        return (!fits).then_some(RANGE);
    }
    // useradd(8) allows less, directories of companies allow more.
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',');
    let fits = !part.is_empty() && !part.starts_with(['-', '+']) && !part.contains(odd);
    (!fits).then_some(FORM)
}
