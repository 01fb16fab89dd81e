//! Imports an interface that nobody offers. Is refused when it is loaded.

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package evil:host;
            interface files { read: func(path: string) -> string; }
            world reader { import files; }
        ",
        generate_all,
    });
}

pith_guests::guest!({ pith_guests::says(bindings::evil::host::files::read("/etc/passwd")) });
