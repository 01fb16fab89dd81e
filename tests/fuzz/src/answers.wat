;; Answers with bytes of the input, in every hook: the settings are the input, one letter from `a` to `p` for each half of a byte.
;;
;; They are put to the address 240, and mean
;;   240  level, pointer and length of a line for the log, three words; none is logged where the level is -1
;;   252  the pointer to the answer, a word
;;   256  whatever that points to
;;
;; A core module with the exports of the world `complete-policy`; the description of the world is added to it. $REALLOC is what
;; `cabi_realloc` gives the host to write the question into.
(module
  (import "pith:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  ;; Enough to answer with more than the host takes.
  (memory (export "memory") 8)
  (global $free (mut i32) (i32.const 131072))
  (func $body (param $from i32) (param $length i32) (result i32) (local $at i32)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (i32.shr_u (local.get $length) (i32.const 1))))
        (i32.store8 offset=240 (local.get $at) (i32.or
          (i32.shl (i32.sub (i32.load8_u (local.get $from)) (i32.const 97)) (i32.const 4))
          (i32.sub (i32.load8_u offset=1 (local.get $from)) (i32.const 97))))
        (local.set $from (i32.add (local.get $from) (i32.const 2)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (if (i32.ne (i32.load (i32.const 240)) (i32.const -1))
      (then (call $log (i32.load (i32.const 240)) (i32.load (i32.const 244)) (i32.load (i32.const 248)))))
    (i32.load (i32.const 252)))
  ;; The parameters of the hooks are more than are passed as values, so they lie in memory, the settings first.
  (func $spilled (param $parameters i32) (result i32)
    (call $body (i32.load (local.get $parameters)) (i32.load offset=4 (local.get $parameters))))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    $REALLOC)
  (func (export "pith:policy/exemption@0.1.0#exempt") (param i32) (result i32) (call $spilled (local.get 0)))
  (func (export "pith:policy/sidecar@0.1.0#adjust") (param i32) (result i32) (call $spilled (local.get 0)))
  (func (export "pith:policy/naming@0.1.0#name") (param i32) (result i32) (call $spilled (local.get 0)))
  (func (export "pith:policy/quota@0.1.0#decide") (param i32) (result i32) (call $spilled (local.get 0)))
  (func (export "pith:policy/settings@0.1.0#validate") (param i32 i32) (result i32)
    (call $body (local.get 0) (local.get 1))))
