;; Has a memory that threads could share.
;;
;; A core module with the exports of the world `complete-policy`; the test adds the description of the world. Every hook answers with
;; a `result` in memory: the word 0 for `ok` or 1 for `err`, then, for `err`, the pointer and length of a string, twice for
;; the hook `settings`.
(module
  (memory (export "memory") 1 1 shared)
  (func $body (result i32) (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))
  (global $free (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "pith:policy/exemption@0.1.0#exempt") (param i32) (result i32) (call $body))
  (func (export "pith:policy/sidecar@0.1.0#adjust") (param i32) (result i32) (call $body))
  (func (export "pith:policy/naming@0.1.0#name") (param i32) (result i32) (call $body))
  (func (export "pith:policy/quota@0.1.0#decide") (param i32) (result i32) (call $body))
  (func (export "pith:policy/settings@0.1.0#validate") (param i32 i32) (result i32) (call $body)))
