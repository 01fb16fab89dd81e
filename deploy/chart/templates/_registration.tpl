{{/* The MutatingWebhookConfiguration, whoever applies it. */}}
{{- define "pith.registration" -}}
{{- $webhook := .Values.webhook -}}
{{- $excluded := append $webhook.excludedNamespaces .Release.Namespace | uniq -}}
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: {{ include "pith.name" . }}-webhook
  labels: {{- include "pith.labels" (list . "webhook") | nindent 4 }}
  {{- if and (eq $webhook.registration "chart") (eq .Values.certificates.source "cert-manager") }}
  annotations:
    cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ include "pith.name" . }}-webhook
  {{- end }}
webhooks:
  {{- range $name, $label := dict "inject.pith.dev" "juicefs.com/enable-injection" "serverless.inject.pith.dev" "juicefs.com/enable-serverless-injection" }}
  - name: {{ $name }}
    admissionReviewVersions: [v1]
    clientConfig: {{- include "pith.registration.client" $ | nindent 6 }}
    rules:
      - apiGroups: [""]
        apiVersions: [v1]
        operations: [CREATE]
        resources: [pods]
        scope: Namespaced
    matchPolicy: Equivalent
    namespaceSelector:
      matchExpressions:
        - { key: {{ $label }}, operator: In, values: ["true"] }
        - { key: kubernetes.io/metadata.name, operator: NotIn, values: {{ toJson $excluded }} }
        {{- with $webhook.namespaceSelector.matchExpressions }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $webhook.namespaceSelector.matchLabels }}
      matchLabels: {{- toYaml . | nindent 8 }}
      {{- end }}
    objectSelector:
      matchExpressions:
        - { key: disable.sidecar.juicefs.com/inject, operator: NotIn, values: ["true"] }
        {{- with $webhook.objectSelector.matchExpressions }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $webhook.objectSelector.matchLabels }}
      matchLabels: {{- toYaml . | nindent 8 }}
      {{- end }}
    matchConditions:
      - name: has-a-volume-that-may-be-juicefs
        expression: >-
          has(object.spec.volumes) && object.spec.volumes.exists(volume,
          has(volume.persistentVolumeClaim) || has(volume.ephemeral) ||
          (has(volume.csi) && volume.csi.driver == {{ $.Values.driver | quote }}))
      {{- with $webhook.matchConditions }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    failurePolicy: {{ $webhook.failurePolicy }}
    reinvocationPolicy: {{ $webhook.reinvocationPolicy }}
    sideEffects: {{ $webhook.sideEffects }}
    timeoutSeconds: {{ $webhook.timeoutSeconds }}
  {{- end }}
  {{- if $webhook.validation }}
  # These change nothing, and nobody waits for them where they do not answer.
  - name: volumes.pith.dev
    admissionReviewVersions: [v1]
    clientConfig: {{- include "pith.registration.client" . | nindent 6 }}
    rules:
      - { apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [persistentvolumes], scope: Cluster }
    matchConditions:
      - name: made-by-hand-for-juicefs
        expression: >-
          has(object.spec.csi) && object.spec.csi.driver == {{ .Values.driver | quote }}
          && (!has(object.spec.storageClassName) || object.spec.storageClassName == "")
    failurePolicy: Ignore
    sideEffects: None
    timeoutSeconds: 5
  - name: secrets.pith.dev
    admissionReviewVersions: [v1]
    clientConfig: {{- include "pith.registration.client" . | nindent 6 }}
    rules:
      - { apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets], scope: Namespaced }
    objectSelector: { matchLabels: { juicefs.com/validate-secret: "true" } }
    failurePolicy: Ignore
    sideEffects: None
    timeoutSeconds: 5
  {{- if .Values.policies.bindings }}
  - name: policybindings.pith.dev
    admissionReviewVersions: [v1]
    clientConfig: {{- include "pith.registration.client" . | nindent 6 }}
    rules:
      - { apiGroups: [pith.dev], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [policybindings], scope: Cluster }
    failurePolicy: Ignore
    sideEffects: None
    # A module may have to be compiled.
    timeoutSeconds: 30
  {{- end }}
  {{- with $webhook.mountPodNamespace }}
  - name: evictions.pith.dev
    admissionReviewVersions: [v1]
    clientConfig: {{- include "pith.registration.client" $ | nindent 6 }}
    rules:
      - { apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods/eviction], scope: Namespaced }
    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {{ . }} } }
    failurePolicy: Ignore
    sideEffects: None
    timeoutSeconds: 5
  {{- end }}
  {{- end }}
{{- end }}

{{/* Where it is called. */}}
{{- define "pith.registration.client" -}}
service:
  namespace: {{ .Release.Namespace }}
  name: {{ include "pith.name" . }}-webhook
  path: /mutate
  port: 443
{{- with .Values.certificates.caBundle }}
caBundle: {{ b64enc . }}
{{- end }}
{{- end }}
