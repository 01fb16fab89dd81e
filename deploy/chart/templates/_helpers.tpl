{{/* What the objects of this release are called, or begin with. */}}
{{- define "pith.name" -}}
{{- $name := contains "pith" .Release.Name | ternary .Release.Name (printf "%s-pith" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that never change, by which pods are found: (list $ component) */}}
{{- define "pith.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: pith
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of an object: (list $ component) */}}
{{- define "pith.labels" -}}
{{- $root := index . 0 -}}
{{ include "pith.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The reference of an image: (list image its-default-tag) */}}
{{- define "pith.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end }}
{{- end }}

{{/* The Secret with the serving certificate. */}}
{{- define "pith.tlsSecret" -}}
{{- .Values.certificates.secretName | default (printf "%s-webhook-tls" (include "pith.name" .)) -}}
{{- end }}

{{/* The Secret with the key of the records. */}}
{{- define "pith.recordKeySecret" -}}
{{- .Values.csi.recordKeySecret | default (printf "%s-record-key" (include "pith.name" .)) -}}
{{- end }}

{{/* The Service's names in certificates, the one that API servers ask for first. */}}
{{- define "pith.serviceNames" -}}
{{- $service := printf "%s-webhook.%s.svc" (include "pith.name" .) .Release.Namespace -}}
{{ list $service (printf "%s.cluster.local" $service) | toJson }}
{{- end }}

{{/* Whether Pith keeps the webhook configuration, or the CA in the chart's: "yes" or nothing. */}}
{{- define "pith.registers" -}}
{{- if eq .Values.webhook.registration "pith" -}}
yes
{{- else if eq .Values.certificates.source "pith" -}}
yes
{{- else if and (eq .Values.certificates.source "existing") (not .Values.certificates.caBundle) -}}
yes
{{- end }}
{{- end }}

{{/* The ConfigMap in which the controller says what pods must know of file systems. */}}
{{- define "pith.fileSystems" -}}
{{ include "pith.name" . }}-file-systems
{{- end }}

{{/* What both configurations begin with, as YAML. */}}
{{- define "pith.config.common" -}}
driver: {{ .Values.driver }}
admin: { listen: "0.0.0.0:9080" }
objects: { cluster: { fileSystems: { namespace: {{ .Release.Namespace }}, name: {{ include "pith.fileSystems" . }} } } }
stateDir: /var/lib/pith
{{- if .Values.policies.bindings }}
policyBindings: { namespace: {{ .Release.Namespace }} }
{{- end }}
{{- end }}

{{/* What both do with PolicyBindings. */}}
{{- define "pith.rights.bindings" -}}
# Which policies are put to use, and what is said of them.
- apiGroups: [pith.dev]
  resources: [policybindings]
  verbs: [get, list, watch]
- apiGroups: [pith.dev]
  resources: [policybindings/status]
  verbs: [patch]
# The modules that were in force last, for replicas that start.
- apiGroups: [pith.dev]
  resources: [policymodules]
  verbs: [get, create, patch]
{{- end }}

{{/* The same, in the release's namespace. */}}
{{- define "pith.rights.modules" -}}
# The modules of PolicyBindings.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
# Who of the replicas sums up. What is made has no name yet when it is asked who may make it.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [pith-policy-bindings]
  verbs: [get, update]
{{- end }}

{{/* What fetches modules may read of Secrets. */}}
{{- define "pith.rights.pullSecrets" -}}
# The registries' credentials, each by its name.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson .Values.policies.pullSecrets }}
  verbs: [get]
{{- end }}

{{/* The webhook's configuration. */}}
{{- define "pith.config.webhook" -}}
{{- $name := include "pith.name" . -}}
{{- $webhook := dict "listen" "0.0.0.0:9443" -}}
{{- if eq .Values.certificates.source "pith" -}}
{{- $secret := dict "namespace" .Release.Namespace "name" (include "pith.tlsSecret" .) "names" (include "pith.serviceNames" . | fromJsonArray) -}}
{{- $_ := set $webhook "tls" (dict "secret" $secret) -}}
{{- else -}}
{{- $_ := set $webhook "tls" (dict "files" (dict "certificate" "/etc/pith/tls/tls.crt" "key" "/etc/pith/tls/tls.key")) -}}
{{- end -}}
{{- if include "pith.registers" . -}}
{{- $registration := dict "manifest" "/etc/pith/webhook.yaml" -}}
{{- if eq .Values.webhook.registration "pith" -}}
{{- $_ := set $registration "owner" (dict "kind" "ClusterRole" "name" (printf "%s-webhook" $name)) -}}
{{- else -}}
{{- $_ := set $registration "caBundleOnly" true -}}
{{- end -}}
{{- if and (ne .Values.certificates.source "pith") (not .Values.certificates.caBundle) -}}
{{- $_ := set $registration "caFile" "/etc/pith/tls/ca.crt" -}}
{{- end -}}
{{- $_ := set $webhook "registration" $registration -}}
{{- end -}}
{{- $config := include "pith.config.common" . | fromYaml -}}
{{- $_ := set $config "webhook" $webhook -}}
{{- $sidecar := dict "guardImage" (include "pith.image" (list .Values.image .Chart.AppVersion)) -}}
{{- if .Values.completeJobs -}}
{{- $_ := set $sidecar "completeJobs" true -}}
{{- end -}}
{{- $_ := set $config "sidecar" $sidecar -}}
{{- if .Values.driverConfig.configMap -}}
{{- $_ := set $config "driverConfig" "/etc/pith/driver/config.yaml" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (omit (deepCopy .Values.config) "csi" "controller")) -}}
{{- end }}

{{/* The controller's configuration. */}}
{{- define "pith.config.controller" -}}
{{- $config := include "pith.config.common" . | fromYaml -}}
{{- $_ := set $config "csi" (dict "socket" "/run/pith/csi.sock" "cluster" .Values.clusterName "recordKey" "/etc/pith/record-key/record.key" "trashDays" .Values.csi.trashDays) -}}
{{- $controller := dict -}}
{{- if .Values.controller.cleaner -}}
{{- $cleaner := dict "namespace" .Release.Namespace "serviceAccount" (printf "%s-cleaner" (include "pith.name" .)) -}}
{{- $_ := set $cleaner "image" (include "pith.image" (list .Values.image .Chart.AppVersion)) -}}
{{- $_ := set $controller "cleaner" $cleaner -}}
{{- end -}}
{{- $_ := set $config "controller" $controller -}}
{{- if .Values.completeJobs -}}
{{- $_ := set $config "sidecar" (dict "completeJobs" true) -}}
{{- end -}}
{{- $config = mergeOverwrite $config (omit (deepCopy .Values.config) "webhook") -}}
{{- $_ := set $config "webhook" nil -}}
{{- toYaml $config -}}
{{- end }}

{{/* What of a pod's spec both Deployments have from their values: (list $ values component) */}}
{{- define "pith.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
serviceAccountName: {{ include "pith.name" $root }}-{{ index . 2 }}
automountServiceAccountToken: true
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  # Or the kubelet changes the owner of every file at each start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "pith.selector" (list $root (index . 2)) | nindent 14 }}
{{- end }}
{{- end }}

{{/* The security context of every container. */}}
{{- define "pith.container.security" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
{{- end }}

{{/* Where policies are mounted. */}}
{{- define "pith.policies.mounts" -}}
{{- range $index, $policy := .Values.policies.configMaps }}
- { name: policies-{{ $index }}, mountPath: /etc/pith/policies/{{ $policy.name }}, readOnly: true }
{{- end }}
{{- end }}

{{- define "pith.policies.volumes" -}}
{{- range $index, $policy := .Values.policies.configMaps }}
- { name: policies-{{ $index }}, configMap: { name: {{ $policy.name }} } }
{{- end }}
{{- end }}

{{/* Health as Pith says it, the same for both. */}}
{{- define "pith.probes" -}}
# Policies that were never compiled here are compiled before it listens.
startupProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 1, failureThreshold: 120 }
livenessProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3 }
readinessProbe: { httpGet: { path: /readyz, port: admin }, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 2 }
{{- end }}
