;; Calls the host while the host is writing the question into its memory, in every hook.
;;
;; A core module with the exports of the world `complete-policy`; the test adds the description of the world. Every hook answers with
;; a `result` in memory: the word 0 for `ok` or 1 for `err`, then, for `err`, the pointer and length of a string, twice for
;; the hook `settings`.
(module
  (import "pith:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func $body (result i32) unreachable)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (call $log (i32.const 0) (i32.const 0) (i32.const 1))
    (i32.const 4096))
  (func (export "pith:policy/exemption@0.1.0#exempt") (param i32) (result i32) (call $body))
  (func (export "pith:policy/sidecar@0.1.0#adjust") (param i32) (result i32) (call $body))
  (func (export "pith:policy/naming@0.1.0#name") (param i32) (result i32) (call $body))
  (func (export "pith:policy/quota@0.1.0#decide") (param i32) (result i32) (call $body))
  (func (export "pith:policy/settings@0.1.0#validate") (param i32 i32) (result i32) (call $body)))
