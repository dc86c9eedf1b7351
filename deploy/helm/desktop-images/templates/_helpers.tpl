{{- define "desktop-images.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "desktop-images.selector" -}}
app.kubernetes.io/name: desktop-images
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "desktop-images.labels" -}}
{{ include "desktop-images.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Whether records are outside of the pods, so that there may be several. */}}
{{- define "desktop-images.isShared" -}}
{{- if .Values.store.urlSecret -}}yes{{- end -}}
{{- end -}}

{{- define "desktop-images.pod" -}}
{{- $probe := dict "port" "http" "scheme" (ternary "HTTPS" "HTTP" (ne .Values.tls.secret "")) -}}
metadata:
  labels:
    {{- include "desktop-images.labels" . | nindent 4 }}
  annotations:
    checksum/permissions: {{ .Values.auth.permissions | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "desktop-images.name" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Longer than the server needs to drain.
  terminationGracePeriodSeconds: {{ add .Values.drainDelaySeconds .Values.drainTimeoutSeconds 15 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "desktop-images.selector" . | nindent 10 }}
  containers:
    - name: desktop-images
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - serve
        - --listen=0.0.0.0:8080
        - --data-dir=/data/images
        - --require-auth
        - --drain-delay={{ .Values.drainDelaySeconds }}s
        - --drain-timeout={{ .Values.drainTimeoutSeconds }}s
        - --log-format=json
        {{- if .Values.store.passwordSecret }}
        - --store-password-file=/etc/desktop-images/store/password
        {{- end }}
        {{- with .Values.blobs.url }}
        - --blobs={{ . }}
        {{- end }}
        {{- with .Values.blobs.endpoint }}
        - --blobs-endpoint={{ . }}
        {{- end }}
        {{- if .Values.tls.secret }}
        - --tls-cert=/etc/desktop-images/tls/tls.crt
        - --tls-key=/etc/desktop-images/tls/tls.key
        {{- else }}
        - --insecure-plaintext
        {{- end }}
        {{- if .Values.auth.permissions }}
        - --permissions-file=/etc/desktop-images/permissions/permissions.toml
        {{- end }}
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      {{- if .Values.store.urlSecret }}
      env:
        - name: DESKTOP_IMAGES_STORE
          valueFrom:
            secretKeyRef:
              name: {{ .Values.store.urlSecret }}
              key: url
      {{- end }}
      {{- with .Values.blobs.credentialsSecret }}
      envFrom:
        - secretRef:
            name: {{ . }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8080
      # A start may bring the schema of a large database up to date.
      startupProbe:
        httpGet:
          path: /livez
          {{- toYaml $probe | nindent 10 }}
        periodSeconds: 2
        failureThreshold: 300
      livenessProbe:
        httpGet:
          path: /livez
          {{- toYaml $probe | nindent 10 }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet:
          path: /readyz
          {{- toYaml $probe | nindent 10 }}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop:
            - ALL
      volumeMounts:
        - name: data
          mountPath: /data
        {{- if .Values.store.passwordSecret }}
        - name: store
          mountPath: /etc/desktop-images/store
          readOnly: true
        {{- end }}
        {{- if .Values.tls.secret }}
        - name: tls
          mountPath: /etc/desktop-images/tls
          readOnly: true
        {{- end }}
        {{- if .Values.auth.permissions }}
        - name: permissions
          mountPath: /etc/desktop-images/permissions
          readOnly: true
        {{- end }}
  volumes:
    {{- if include "desktop-images.isShared" . }}
    - name: data
      {{- if .Values.blobs.url }}
      emptyDir: {}
      {{- else }}
      persistentVolumeClaim:
        claimName: {{ include "desktop-images.name" . }}
      {{- end }}
    {{- end }}
    {{- if .Values.store.passwordSecret }}
    - name: store
      secret:
        secretName: {{ .Values.store.passwordSecret }}
    {{- end }}
    {{- if .Values.tls.secret }}
    - name: tls
      secret:
        secretName: {{ .Values.tls.secret }}
    {{- end }}
    {{- if .Values.auth.permissions }}
    - name: permissions
      configMap:
        name: {{ include "desktop-images.name" . }}
    {{- end }}
{{- end -}}
