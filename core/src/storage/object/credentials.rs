//! The shared files of the AWS tools, which the client library does not read: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Only keys, session token, region and endpoint are taken, of the profile in AWS_PROFILE or `default`; what the environment
//! names wins. Roles, SSO and credential processes are not followed: export their keys into the environment.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

/// What the files say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile(BTreeMap<String, String>);

impl Profile {
    /// Of the files that the environment names, or those in the home directory. A file that is not there is empty.
    pub fn read() -> Self {
        let name = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".into());
        let mut profile = Self::default();
        for (variable, file) in
            [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")]
        {
            let path =
                env::var_os(variable).map(PathBuf::from).or_else(|| Some(home()?.join(".aws").join(file)));
            if let Some(text) = path.and_then(|path| std::fs::read_to_string(path).ok()) {
                profile.take(&text, &name);
            }
        }
        profile
    }

    /// A value, such as that of `aws_access_key_id`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Takes the lines of the section `[name]` or `[profile name]`.
    fn take(&mut self, text: &str, name: &str) {
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let section = section.trim();
                inside = section.strip_prefix("profile ").unwrap_or(section).trim() == name;
            } else if let (true, false, Some((key, value))) =
                (inside, line.starts_with(['#', ';']), line.split_once('='))
            {
                self.0.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_its_own_section() {
        let mut profile = Profile::default();
        profile.take(
            "[default]\nregion = r1\n[profile backup]\nregion = r2\n# region = r3\nendpoint_url=http://e",
            "backup",
        );
        profile.take("[backup]\naws_access_key_id = K\naws_secret_access_key=a=b/c+\n", "backup");
        assert_eq!(profile.get("region"), Some("r2"));
        assert_eq!(profile.get("endpoint_url"), Some("http://e"));
        assert_eq!(profile.get("aws_secret_access_key"), Some("a=b/c+"));
        assert_eq!(profile.get("aws_session_token"), None);
    }
}
