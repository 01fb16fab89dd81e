;; A component that imports WASI, which none of the guests in text does. Its hook has another shape than the contract's.
(component
  (import "wasi:random/insecure@0.2.0" (instance
    (export "get-insecure-random-u64" (func (result u64)))))
  (import "wasi:cli/environment@0.2.0" (instance
    (export "get-arguments" (func (result (list string))))))
  (core module $policy
    (func (export "decide") (result i32) (i32.const 0)))
  (core instance $policy (instantiate $policy))
  (func $decide (result u32) (canon lift (core func $policy "decide")))
  (instance $quota (export "decide" (func $decide)))
  (export "pith:policy/quota@0.1.0" (instance $quota)))
