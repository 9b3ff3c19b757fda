//! Values that are checked as they are read, so that an error has their place in the file.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::Uri;
use serde::{Deserialize, Serialize};

/// Longest session: far beyond use, and short of where the calendar ends.
pub(super) const LONGEST_SESSION: Duration = Duration::from_hours(24 * 3650);

macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The value.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_value! {
    /// A network interface's name: 1 to 15 bytes (IFNAMSIZ is 16 with its NUL).
    InterfaceName
}

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        // The kernel's own rule: dev_valid_name() in net/core/dev.c.
        if name.is_empty() || name.len() > 15 {
            Err(format!("an interface's name has 1 to 15 bytes, this has {}; `ip link` lists the names", name.len()))
        } else if name == "." || name == ".." || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
            Err("an interface's name has no `/`, no `:` and no space, and is not `.`; `ip link` lists the names".into())
        } else if name.contains('\0') {
            Err("an interface's name has no NUL byte; `ip link` lists the names".into())
        } else {
            Ok(Self(name))
        }
    }
}

text_value! {
    /// A guest network's name: 1 to 32 ASCII letters, digits, `-`, `_` and `.`, as it stands in URLs and metrics.
    ZoneName
}

impl Default for ZoneName {
    fn default() -> Self {
        Self("guest".into())
    }
}

impl TryFrom<String> for ZoneName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = (1..=32).contains(&name.len()) && !name.starts_with('.');
        if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            Ok(Self(name))
        } else {
            Err("a network's name has 1 to 32 letters, digits, `-`, `_` and `.`, and does not begin with `.`".into())
        }
    }
}

impl std::str::FromStr for ZoneName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

text_value! {
    /// An absolute http or https URL of the login page.
    PortalUrl
}

/// Longest URL: it stands twice in the 511, and every answer must fit one segment.
const LONGEST_URL: usize = 200;

impl TryFrom<String> for PortalUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let wanted = "write it as `http://HOST[:PORT]/PATH` or `https://…`";
        if url.len() > LONGEST_URL {
            return Err(format!("{} bytes are too long: the answers hold at most {LONGEST_URL}", url.len()));
        }
        // Stricter than `Uri`: the URL goes into a header and, unescaped by design, into fixed HTML.
        if let Some(bad) =
            url.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '\\'))
        {
            return Err(format!("{bad:?} can't be part of a URL: percent-encode it"));
        }
        let uri: Uri = url.parse().map_err(|e| format!("not a URL ({e}): {wanted}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("not an absolute URL: {wanted}"));
        }
        let authority = uri.authority().ok_or_else(|| format!("no host in it: {wanted}"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(format!("a host is needed, and a user name is not allowed: {wanted}"));
        }
        if url.contains('#') {
            return Err("a fragment (`#…`) never reaches the login page: leave it out".into());
        }
        Ok(Self(url))
    }
}

text_value! {
    /// The network's name, as the page shows it.
    Title
}

impl Default for Title {
    fn default() -> Self {
        Self("Guest network".into())
    }
}

impl TryFrom<String> for Title {
    type Error = String;

    fn try_from(title: String) -> Result<Self, String> {
        match title.chars().count() {
            1..=80 if !title.contains(char::is_control) && !title.trim().is_empty() => Ok(Self(title)),
            1..=80 => Err("a title is one line of text: remove the control characters, or write something".into()),
            n => Err(format!("a title has 1 to 80 characters, this has {n}")),
        }
    }
}

text_value! {
    /// The terms that the guest accepts, as plain text.
    Terms
}

impl Default for Terms {
    fn default() -> Self {
        Self("By connecting you agree to use this network lawfully and to respect other users.".into())
    }
}

impl TryFrom<String> for Terms {
    type Error = String;

    fn try_from(terms: String) -> Result<Self, String> {
        if terms.len() > 65_536 {
            return Err(format!("{} bytes are too long: the terms have at most 65536; link to the rest", terms.len()));
        }
        Ok(Self(terms))
    }
}

text_value! {
    /// A Unix group's name.
    GroupName
}

impl TryFrom<String> for GroupName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name.is_empty() || name.contains(|c: char| c == ':' || c == '\0' || c.is_whitespace()) {
            return Err("a group's name isn't empty and has no `:` and no space; `getent group` lists the names".into());
        }
        Ok(Self(name))
    }
}

/// A path that does not depend on the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    pub(super) fn fixed(path: &'static str) -> Self {
        Self(PathBuf::from(path))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl From<AbsolutePath> for PathBuf {
    fn from(value: AbsolutePath) -> Self {
        value.0
    }
}

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        if !path.is_absolute() {
            return Err(format!("{} is not an absolute path: begin it with `/`", path.display()));
        }
        if path.to_string_lossy().contains('\0') {
            return Err("a path has no NUL byte".into());
        }
        Ok(Self(path))
    }
}

/// How long a session lasts: 1 second to 3650 days, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionLength(Duration);

impl SessionLength {
    /// The length.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for SessionLength {
    fn default() -> Self {
        Self(Duration::from_hours(8))
    }
}

impl TryFrom<Duration> for SessionLength {
    type Error = String;

    fn try_from(length: Duration) -> Result<Self, String> {
        // The control API speaks in seconds: what it would round is refused.
        if length < Duration::from_secs(1) || length > LONGEST_SESSION || length.subsec_nanos() != 0 {
            let length = humantime::format_duration(length);
            return Err(format!("a session lasts from 1s to 3650days in whole seconds, not {length}"));
        }
        Ok(Self(length))
    }
}

impl TryFrom<String> for SessionLength {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let length = humantime::parse_duration(&text)
            .map_err(|e| format!("`{text}` is not a duration ({e}): write it as 45m, 8h or \"1d 12h\""))?;
        Self::try_from(length)
    }
}

impl std::str::FromStr for SessionLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<SessionLength> for String {
    fn from(value: SessionLength) -> Self {
        humantime::format_duration(value.0).to_string()
    }
}

/// A number between bounds, with a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Count<const DEFAULT: u32, const MIN: u32, const MAX: u32>(u32);

/// How many sessions the table holds.
pub type Clients = Count<65_536, 1, 16_777_216>;

impl<const DEFAULT: u32, const MIN: u32, const MAX: u32> Count<DEFAULT, MIN, MAX> {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl<const DEFAULT: u32, const MIN: u32, const MAX: u32> Default for Count<DEFAULT, MIN, MAX> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<const DEFAULT: u32, const MIN: u32, const MAX: u32> TryFrom<i64> for Count<DEFAULT, MIN, MAX> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        u32::try_from(number)
            .ok()
            .filter(|n| (MIN..=MAX).contains(n))
            .map(Self)
            .ok_or_else(|| format!("{number} is out of bounds: from {MIN} to {MAX} (default {DEFAULT})"))
    }
}

impl<const DEFAULT: u32, const MIN: u32, const MAX: u32> From<Count<DEFAULT, MIN, MAX>> for i64 {
    fn from(value: Count<DEFAULT, MIN, MAX>) -> Self {
        Self::from(value.0)
    }
}
