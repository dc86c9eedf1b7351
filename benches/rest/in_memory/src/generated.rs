//! The code that `build.rs` generates, in modules that mirror the packages.

macro_rules! package {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
        include!(concat!(env!("OUT_DIR"), "/", $name, ".serde.rs"));
    };
}

pub mod google {
    pub mod rpc {
        package!("google.rpc");
    }
}

pub mod yandex {
    pub mod cloud {
        pub mod operation {
            package!("yandex.cloud.operation");
        }
        pub mod clouddesktop {
            pub mod v1 {
                pub mod api {
                    package!("yandex.cloud.clouddesktop.v1.api");
                    include!(concat!(
                        env!("OUT_DIR"),
                        "/yandex.cloud.clouddesktop.v1.api.rest.rs"
                    ));
                }
            }
        }
    }
}

pub mod rest {
    use super::yandex;
    include!(concat!(env!("OUT_DIR"), "/transcoder.rest.rs"));
}
