//! Sections that a zone can override key by key.

/// Makes a section with its defaults, and its twin in which every key may be absent.
macro_rules! section {
    (
        $(#[$doc:meta])* $name:ident,
        $(#[$override_doc:meta])* $override:ident {
            $($(#[$key_doc:meta])* $key:ident: $type:ty = $default:expr,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$key_doc])* pub $key: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        $(#[$override_doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $override {
            $($(#[$key_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $key: Option<$type>,)+
        }

        impl $override {
            /// The section with what is written here in place of the same keys.
            pub fn over(&self, base: &$name) -> $name {
                $name { $($key: self.$key.clone().unwrap_or_else(|| base.$key.clone()),)+ }
            }

            /// Everything written out.
            pub fn all(section: &$name) -> Self {
                Self { $($key: Some(section.$key.clone()),)+ }
            }
        }
    };
}

pub(super) use section;
