//! The `section!` macro: a struct of settings that can be listed, set by name, checked and documented.
//!
//! *Invariants:* a setting exists once, with its default, bound and documentation in one place; flags, YAML keys, checks
//! and `docs/configuration.md` are all derived from that.

use super::value::Value;

/// One setting, as a section hands it out.
pub struct Setting<'a> {
    /// Dotted path, as in a file: `query.timeout`.
    pub key: String,
    /// What it is for.
    pub doc: &'static str,
    /// Its place in the configuration.
    pub value: &'a mut dyn Value,
    /// Allowed range, `least` to `most`, as text.
    pub bound: Option<(String, String)>,
    /// Whether the present value is inside the bound.
    pub inside: bool,
}

/// A struct of settings.
pub trait Section {
    /// Hands every setting to `each`, in the order of their definition; keys begin with `prefix`.
    fn visit(&mut self, prefix: &str, each: &mut dyn FnMut(Setting<'_>));
    /// Hands key and documentation of every group of settings to `each`.
    fn groups(each: &mut dyn FnMut(&'static str, &'static str));
}

/// Defines a struct of settings: `name: Type = default[, within least..=most];`, then nested sections.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $($(#[doc = $fdoc:literal])+ $field:ident: $ty:ty = $default:expr $(, within $least:expr, $most:expr)?;)*
        }
        $(sections { $($(#[doc = $sdoc:literal])+ $sub:ident: $subty:ty;)* })?
        $(besides { $($(#[doc = $odoc:literal])+ $other:ident: $oty:ty;)* })?
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $fdoc])+ pub $field: $ty,)*
            $($($(#[doc = $sdoc])+ pub $sub: $subty,)*)?
            $($($(#[doc = $odoc])+ pub $other: $oty,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($sub: <$subty>::default(),)*)?
                    $($($other: <$oty>::default(),)*)?
                }
            }
        }

        impl $crate::config::section::Section for $name {
            fn visit(&mut self, prefix: &str, each: &mut dyn FnMut($crate::config::section::Setting<'_>)) {
                $(
                    #[allow(unused_mut, unused_assignments)]
                    let (mut bound, mut inside) = (None, true);
                    $(
                        let (least, most): ($ty, $ty) = ($least, $most);
                        inside = (&least..=&most).contains(&&self.$field);
                        bound = Some((
                            $crate::config::value::Value::show(&least),
                            $crate::config::value::Value::show(&most),
                        ));
                    )?
                    each($crate::config::section::Setting {
                        key: format!("{prefix}{}", stringify!($field)),
                        doc: concat!($($fdoc, "\n"),+),
                        value: &mut self.$field,
                        bound,
                        inside,
                    });
                )*
                $($(
                    $crate::config::section::Section::visit(
                        &mut self.$sub,
                        &format!("{prefix}{}.", stringify!($sub)),
                        each,
                    );
                )*)?
            }

            fn groups(each: &mut dyn FnMut(&'static str, &'static str)) {
                $($(each(stringify!($sub), concat!($($sdoc, "\n"),+));)*)?
                let _ = each;
            }
        }
    };
}

pub(super) use section;
