//! Every code that people can meet, with what it means and what to do. docs/reasons.md is written from it.
//!
//! A code is a variant and no text, so that nobody can say one that has no entry here. What is special about one pod or one object is
//! said where it is found; what stands here holds for all of them.

use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};

use Level::{Error, Info, Warning};
use Place::{Denial, Event, Finding, NoAnswer, OfVolumes, PolicyFailure, Skip};

/// Where people meet a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A pod is left as it is.
    Skip,
    /// A pod, a PersistentVolume or a Secret is refused.
    Denial,
    /// A policy failed.
    PolicyFailure,
    /// The webhook has no answer.
    NoAnswer,
    /// An event of the controller.
    Event,
    /// A finding of `pith check`.
    Finding(Level),
    /// A finding of `pith volumes check`.
    OfVolumes(Level),
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something will not work, or is not what it looks like.
    Warning,
    /// Something that is good to know.
    Info,
}

/// What there is to say of a code.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// As people and scripts see it.
    pub word: &'static str,
    /// Where it is met.
    pub places: &'static [Place],
    /// What it means, in whole sentences.
    pub meaning: &'static str,
    /// What to do about it, as it stands behind a finding: it begins small and ends without a stop.
    pub action: &'static str,
}

/// One list gives the codes and their entries, so that there is none of the one without the other.
macro_rules! catalogue {
    ($($code:ident $word:literal [$($place:expr),+] $meaning:literal $action:literal;)+) => {
        /// A stable word for metrics, audit annotations, scripts and people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $code,)+
        }

        /// Every code, in the order in which people are told about them.
        pub const CATALOGUE: &[Entry] = &[$(
            Entry { code: Code::$code, word: $word, places: &[$($place),+], meaning: $meaning, action: $action },
        )+];
    };
}

catalogue! {
    NotAPodCreation "not-a-pod-creation" [Skip]
        "The request does not create a pod, so it is no business of Pith's."
        "nothing";
    NoClaims "no-claims" [Skip]
        "No volume of the pod names a claim."
        "nothing, unless it is to have one: name the claim in `spec.volumes`, as `persistentVolumeClaim` or as a generic ephemeral volume";
    NoJuicefsClaims "no-juicefs-claims" [Skip]
        "The pod has claims, and none is for JuiceFS: a claim is what the volume that it is bound to is, and before that what its \
         StorageClass is."
        "nothing, unless one is to be: look at the driver of its PersistentVolume and at the provisioner of its StorageClass, which are \
         to be `csi.juicefs.com`, or what the configuration has as `driver`";
    NamespaceNotEnabled "namespace-not-enabled" [Skip]
        "The pod's namespace did not opt in."
        "give the namespace the label `juicefs.com/enable-injection=true`, and make the pod anew";
    DisabledByLabel "disabled-by-label" [Skip]
        "The pod opted out by its label `disable.sidecar.juicefs.com/inject=true`."
        "nothing, if that is meant; else take the label away, and make the pod anew";
    ExemptByPolicy "exempt-by-policy" [Skip, Event]
        "A policy exempts the pod, for the reason in the pod's annotation `pith.io/skipped` and in an event on it. Its claims are then \
         mounted by somebody else, such as the JuiceFS CSI driver on the node, or not at all."
        "nothing, if that is meant; else change what the reason speaks of, or ask whoever wrote the policy that it names";

    MalformedPod "malformed-pod" [Denial]
        "Some part of the pod is not what Kubernetes has there, such as a text in the place of a list."
        "correct what the sentence names";
    NamespaceUnknown "namespace-unknown" [Denial]
        "Pith does not know the pod's namespace: it was made a moment ago, or is gone."
        "try again in a moment, as controllers do by themselves";
    ClaimNotFound "claim-not-found" [Denial]
        "A volume of the pod names a claim that does not exist, or that Pith does not know yet."
        "create the claim, then the pod; where the claim can only come later, name its StorageClass in the pod's annotation \
         `claim-class.pith.io/<volume>`";
    PersistentVolumeUnknown "persistent-volume-unknown" [Denial]
        "A claim of the pod is bound to a PersistentVolume that Pith does not know: it was made a moment ago, or is gone."
        "try again in a moment, as controllers do by themselves; a claim whose volume is gone (`Lost`) has to be made anew";
    UnsupportedVolume "unsupported-volume" [Denial]
        "The pod uses JuiceFS in a way that a sidecar cannot serve: as an inline CSI volume, or as a raw block device."
        "use a PersistentVolumeClaim, mounted with `volumeMounts`";
    UnsupportedPod "unsupported-pod" [Denial]
        "The pod asks for something that no JuiceFS sidecar can live with, such as `hostUsers: false`, `recursiveReadOnly` or Windows."
        "leave out what the sentence names; to mount JuiceFS in another way, set the label \
         `disable.sidecar.juicefs.com/inject=true` on the pod";
    InvalidSetting "invalid-setting" [Denial]
        "A value for the sidecar cannot be used. The sentence says which object has it, under which key, and what is wrong with it."
        "correct it where the sentence says; parameters of a StorageClass cannot be changed: that takes a class of a new name";
    ForeignContainer "foreign-container" [Denial]
        "The pod has a container of its own with the name of one of Pith's."
        "rename that container; if it is there to mount JuiceFS, set the label `disable.sidecar.juicefs.com/inject=true` on the pod";
    ForeignVolume "foreign-volume" [Denial]
        "The pod has a volume of its own with the name of one of Pith's."
        "rename that volume";
    DeniedByPolicy "denied-by-policy" [Denial]
        "A policy refuses the pod. The sentence is the policy's."
        "do what the sentence asks for, or ask whoever wrote the policy that it names";
    DuplicateVolumeHandle "duplicate-volume-handle" [Denial]
        "Another PersistentVolume has the same `volumeHandle`, and the kubelet would take the two for one."
        "give each PersistentVolume a handle of its own, such as its name";
    UnusableSecret "unusable-secret" [Denial]
        "The Secret says that it is one of a file system, by its label `juicefs.com/validate-secret: \"true\"`, and describes none."
        "correct the key that the sentence names, or take the label away";
    UnusableBinding "unusable-binding" [Denial]
        "The PolicyBinding cannot be used: its module is no policy, or its settings, selectors or limits are not what they can be."
        "correct what the sentence names; what was in force before stays in force";
    MountPodInUse "mount-pod-in-use" [Denial]
        "The pod that is to be evicted is a mount pod of the JuiceFS CSI driver, and pods on its node use what it has mounted."
        "evict those first, as `kubectl drain` does: it tries the mount pod again until they are gone";

    Trap "trap" [PolicyFailure]
        "The policy crashed: it panicked, or did something that WebAssembly does not allow."
        "tell its author, with the pod: `pith inject --explain` asks the policy again and shows what it logs";
    Deadline "deadline" [PolicyFailure]
        "The policy ran longer than its `limits.deadline`."
        "where it happens now and then, Pith has too little CPU; where the same pod always fails, the policy is to do less, or to have \
         more time";
    Stack "stack" [PolicyFailure]
        "The policy calls itself too deeply."
        "tell its author, with the pod";
    Memory "memory" [PolicyFailure]
        "The policy asked for more memory than its `limits.memory`, or for larger tables than there are."
        "give it more, or let it keep less: each call begins with none of what the one before it used";
    Budget "budget" [PolicyFailure]
        "The policy called the host too often, or handed it too much at once."
        "let it log less, and answer with less";
    Answer "answer" [PolicyFailure]
        "The policy answered something that cannot be used, such as `much` as an amount."
        "tell its author, with the sentence: it says what is wrong, and where";
    Paused "paused" [PolicyFailure]
        "The policy failed ten times in a row, over several objects, and is left alone for a while. What its `onFailure` says holds \
         meanwhile."
        "look for the failures before, in the log or in `pith_policy_calls_total`: each has a reason of its own; the pause ends by itself";
    Rate "rate" [PolicyFailure]
        "The policy was asked as often, or ran as long, as its `limits.callsPerSecond` or `limits.timePerSecond` let it in a second, and was \
         not asked once more. What its `onFailure` says holds meanwhile."
        "nothing, where controllers try again soon; where it goes on, raise the bound, or look at what makes so many pods or volumes";
    Condition "condition" [PolicyFailure]
        "A condition of the policy's binding could not be evaluated about this object, and none was false: the policy was not asked."
        "let the condition ask first whether what it reads is there, as in `has(pod.name) && …` or `'team' in pod.labels && …`; the \
         sentence says which one, and what was missing";
    Reported "reported" [PolicyFailure]
        "The policy says itself that it cannot answer. The sentence is its own."
        "do what the sentence asks for; mostly it is about a label of the pod or about the policy's settings";
    Host "host" [PolicyFailure]
        "Pith could not run the policy: too many run at once, or the request had no time left."
        "give Pith more CPU or more replicas; where a module is not loaded, report it: that is a defect of \
         Pith";

    UnreadableBody "unreadable-body" [NoAnswer]
        "The request is no JSON by its `Content-Type`, is larger than `webhook.maxBody`, or did not come whole and in time."
        "raise `webhook.maxBody` where pods are that large; else look at what lies between the API server and Pith";
    UnreadableReview "unreadable-review" [NoAnswer]
        "The request is no AdmissionReview of `admission.k8s.io/v1`."
        "register the webhook with `admissionReviewVersions: [v1]`, as Pith itself does; nobody but API servers should ask it";
    Busy "busy" [NoAnswer]
        "Pith has as many requests in hand as it may (`webhook.maxInFlight`)."
        "nothing, where controllers try again soon; where it goes on, run more replicas";
    NotSynced "not-synced" [NoAnswer]
        "Pith has started, and the API server has not listed all objects yet."
        "wait a moment; where it goes on, `/readyz` and the log say which kind is missing and why";
    Unanswered "unanswered" [NoAnswer]
        "The decision needs an object that Pith did not know, and the API server did not say in time whether there is one."
        "try again; where it goes on, look at the API server, and in Pith's log";
    Panic "panic" [NoAnswer]
        "Pith failed while it handled this request. Others are not touched."
        "report it, with what the log says: that is a defect of Pith";

    SecretNotWritten "secret-not-written" [Event]
        "The Secret beside a claim, or that of a pod whose claim came later, cannot be what it is to be. Pods wait for it."
        "see to what the sentence says, mostly the Secret of the file system; it is tried again within a minute";
    TemplateValueUnknown "template-value-unknown" [Event]
        "A template has no value, so it is empty text. On a pod it is one of `mountPodPatch`, whose claim was not bound when the pod was \
         made, or one in the mount options of a class; on a claim it is one of its class's `pathPattern`. Of these two, the claim lacks the \
         label or annotation."
        "make the pod anew if it needs the value; give the next claim what the event names, as the directory of this one stays what it is; \
         with `sidecar.strictTemplates` and `csi.strictTemplates` such pods and claims are refused instead";
    MountLeftBehind "mount-left-behind" [Event]
        "A pod could not end, because JuiceFS was still mounted on its node when its containers were gone. A cleaner pod unmounts it."
        "nothing; where it happens often, look at why clients are killed: out of memory, mostly";

    WebhookNotRegistered "webhook-not-registered" [Finding(Error)]
        "No MutatingWebhookConfiguration is there that is ours: the one in `webhook.registration.manifest`, else any with the webhook \
         `inject.pith.dev`. No pod is injected."
        "look whether `pith serve` runs with `webhook.registration`, and at its log";
    WebhookCaMismatch "webhook-ca-mismatch" [Finding(Error)]
        "The `caBundle` of the webhook is missing or cannot be read, or has no CA of the certificate that is served, or that one is for \
         another name."
        "let Pith register itself (`webhook.registration`), or put the CA of its certificate there; after a renewal, wait a \
         minute and look again";
    WebhookUnreachable "webhook-unreachable" [Finding(Error)]
        "The webhook's Service is not there, or has no address that is ready."
        "look at the pods of `pith serve`, and at their readiness";
    CertificateExpired "certificate-expired" [Finding(Error)]
        "The certificate that is served has ended. Where it cannot be reached, every CA in the `caBundle` has."
        "look at the log of `pith serve`, or of whoever renews it, and make a new one";
    CertificateExpiring "certificate-expiring" [Finding(Warning)]
        "The certificate that is served ends soon: less than a quarter of its time is left, and less than 30 days."
        "look at the log of `pith serve`, or of whoever renews it";
    WebhookFailsOpen "webhook-fails-open" [Finding(Info)]
        "The webhook's `failurePolicy` is `Ignore`: while no replica answers, pods are made without their volumes."
        "set `failurePolicy: Fail`, unless that is meant";
    TwoInjectors "two-injectors" [Finding(Error)]
        "The JuiceFS CSI driver's own webhook is asked about the same pods. Whichever is asked first mounts, and the other leaves the \
         pod alone."
        "remove that webhook, or give the two other `namespaceSelector`s";
    NamespaceNotSelected "namespace-not-selected" [Finding(Error)]
        "A namespace opted in by its label, and the webhook's `namespaceSelector` leaves it out: its pods are not injected."
        "take the label away, or let the `namespaceSelector` have it (`webhook.excludedNamespaces` of the chart)";
    CsidriverMissing "csidriver-missing" [Finding(Error)]
        "There is no CSIDriver of our name, so Kubernetes waits for somebody to attach the volumes, and nobody does."
        "make it, with `attachRequired: false` (`csiDriver.create` of the chart)";
    ClassWithoutSecret "class-without-secret" [Finding(Error)]
        "A class of our driver names no Secret of a file system: its volumes can be neither made nor mounted."
        "name one with `csi.storage.k8s.io/provisioner-secret-name` and `-namespace`";
    ClassInvalidSetting "class-invalid-setting" [Finding(Error)]
        "A class has a value that cannot be used: pods with its claims are refused."
        "correct it in a class of a new name, as classes cannot be changed";
    ClassUnknownKey "class-unknown-key" [Finding(Warning)]
        "A class has a key that has no effect."
        "correct its spelling or leave it out, in a class of a new name, as classes cannot be changed";
    FileSystemSecretMissing "file-system-secret-missing" [Finding(Error)]
        "A class or a volume names a Secret of a file system that is not there."
        "make it, with the keys of the JuiceFS CSI driver";
    ClaimWithoutSecret "claim-without-secret" [Finding(Error)]
        "A claim that is bound has no Secret beside it. Pods that use it wait for that Secret."
        "look at the events of the claim (`SecretNotWritten`), and whether `pith serve` runs with `controller`";
    ClaimSecretImpossible "claim-secret-impossible" [Finding(Error)]
        "A claim can have no Secret beside it: its volume names none of a file system, or a directory that cannot be."
        "correct the PersistentVolume, or make another one";
    PodMissed "pod-missed" [Finding(Warning)]
        "A pod has no sidecar and would get one now: it was made before its namespace opted in, or while the webhook was not asked."
        "make the pod anew: `kubectl rollout restart` of its workload, or delete it";
    PodRefused "pod-refused" [Finding(Warning)]
        "A pod, or one that a workload in the files would make, would be refused if it were made now."
        "see to that before the pod is made anew";
    InjectionStale "injection-stale" [Finding(Warning)]
        "An injected pod would get something else now, or nothing: a policy, a class or the configuration has changed since."
        "see what has (`pith inject -n NAMESPACE pod/NAME -o diff`), and make the pod anew: `kubectl rollout restart` of its workload, or delete it";
    PolicyFailed "policy-failed" [Finding(Error)]
        "A policy failed that was asked about a pod."
        "look at the kind of the failure, which is in the sentence: `pith inject --explain` asks the policy about one pod";
    MountPodStranded "mount-pod-stranded" [Finding(Error), Finding(Warning), Finding(Info)]
        "A mount pod of the JuiceFS CSI driver holds volumes of pods that run, and lives as long as the driver's pod on its node tends \
         it. It is an error where there is none any more, a warning where a pod that uses it is in a namespace that opted in, and a note \
         otherwise."
        "make the pods that use it anew before the JuiceFS CSI driver is removed; with injection they need no mount pod";
    NotLookedAt "not-looked-at" [Finding(Info), OfVolumes(Info)]
        "Something could not be read, so nothing is said of it."
        "nothing, if that is known; else give the right to read it, or look where it can be read";

    VolumeRecordUnusable "volume-record-unusable" [OfVolumes(Error)]
        "A volume's record is torn, forged, copied from elsewhere, sealed with another key or made by a newer Pith. Nothing is guessed: \
         every call about the volume is refused, and its directory stays as it is."
        "look in docs/operations.md for the reason; where the PersistentVolume of a live cluster says where the volume lies, `pith \
         volumes repair` writes a torn, missing or misplaced record again, and keeps the old one in the trash";
    VolumeDirectoryMissing "volume-directory-missing" [OfVolumes(Error)]
        "A volume has a record, and its directory is not there: somebody removed or renamed it."
        "put it back, from the trash of JuiceFS or a backup say; or delete the claim";
    VolumeNotEntered "volume-not-entered" [OfVolumes(Error)]
        "The index of directories (`/.pith/paths`) does not have a volume that has a record: another volume may get its directory, and \
         it is not deleted with the volume."
        "let `pith volumes repair` enter it";
    VolumeEntryStale "volume-entry-stale" [OfVolumes(Warning)]
        "The index of directories has a volume without a record, or at another place than its record: no other volume gets that directory."
        "let `pith volumes repair` remove the entry; where the directory is there it is somebody's data, and a person has to say whose";
    VolumeQuotaWrong "volume-quota-wrong" [OfVolumes(Warning), OfVolumes(Info)]
        "The quota of a volume's directory is missing, or another one than the volume's size. For a volume that was adopted without one it \
         is a note."
        "let `pith volumes repair` set it; where a volume was adopted without one, expand its claim once it is to have one";
    VolumeUnfinished "volume-unfinished" [OfVolumes(Warning)]
        "A volume is half made: a call was cut off, or goes on at this moment."
        "wait a moment and look again; then let `pith volumes repair` finish it, or give it up where its claim is gone";
    VolumeDeletionUnfinished "volume-deletion-unfinished" [OfVolumes(Warning)]
        "The deletion of a volume was cut off, or goes on at this moment."
        "wait a moment and look again; then let `pith volumes repair` go on with it";
    StagedRecordLeft "staged-record-left" [OfVolumes(Info)]
        "A record was written and never counted: a call was cut off before it moved it into place, or goes on at this moment."
        "let `pith volumes repair` remove it, if it is this cluster's";
    DirectoryUnrecorded "directory-unrecorded" [OfVolumes(Info)]
        "A directory lies in the root of the file system or beside a volume, where volumes could lie, and nothing says whose it is."
        "nothing, if it is somebody's; Pith never touches it";
    VolumeUnrecorded "volume-unrecorded" [OfVolumes(Info)]
        "A PersistentVolume has no record in its file system: the JuiceFS CSI driver has made it, or its record is lost."
        "nothing, if it says where it lies; `pith volumes repair` writes its record now";
    VolumeUnclaimed "volume-unclaimed" [OfVolumes(Info)]
        "A volume has a record and no PersistentVolume: that was deleted with the policy `Retain`, or by hand."
        "make a PersistentVolume for it if its data is wanted; else delete it with `pith csi delete`";
}

impl Code {
    /// The code of that word, which may be as events have it.
    pub fn from_word(word: &str) -> Option<Code> {
        let is_it = |entry: &&Entry| entry.word == word || entry.code.event_reason() == word;
        CATALOGUE.iter().find(is_it).map(|entry| entry.code)
    }

    /// What there is to say of it.
    pub fn entry(self) -> &'static Entry {
        &CATALOGUE[self as usize]
    }

    /// As people and scripts see it.
    pub fn as_str(self) -> &'static str {
        self.entry().word
    }

    /// As the reason of an event, which Kubernetes writes in one word: `SecretNotWritten`.
    pub fn event_reason(self) -> String {
        let capitalised = |word: &str| [&word[..1].to_uppercase(), &word[1..]].concat();
        self.as_str().split('-').map(capitalised).collect()
    }

    /// A sentence with the code behind it, by which people find the page.
    pub fn behind(self, sentence: impl Display) -> String {
        format!("{sentence} (reason: {self})")
    }

    /// Where the page about it is in the checkout.
    pub fn page(self) -> String {
        format!("docs/reasons.md#{self}")
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_code_and_its_word() {
        for entry in CATALOGUE {
            assert_eq!((entry.code.entry().word, Code::from_word(entry.word)), (entry.word, Some(entry.code)));
            // In kebab case, and without another spelling in the code than in the world.
            assert_eq!(entry.code.event_reason(), format!("{:?}", entry.code));
            assert!(entry.word.bytes().all(|it| it.is_ascii_lowercase() || it == b'-'), "{}", entry.word);
        }
        assert_eq!(Code::from_word("SecretNotWritten"), Some(Code::SecretNotWritten));
        assert_eq!(Code::from_word("somewhere-else"), None);
    }

    #[test]
    fn every_entry_says_what_it_means_and_what_to_do() {
        for Entry { word, places, meaning, action, .. } in CATALOGUE {
            assert!(!places.is_empty(), "{word} is met nowhere");
            assert!(meaning.starts_with(char::is_uppercase) && meaning.ends_with('.'), "{word}: {meaning}");
            assert!(action.starts_with(char::is_lowercase) && !action.ends_with('.'), "{word}: {action}");
        }
    }

    #[test]
    fn a_sentence_ends_with_its_code() {
        assert_eq!(Code::ClaimNotFound.behind("no claim"), "no claim (reason: claim-not-found)");
        assert_eq!(Code::ClaimNotFound.page(), "docs/reasons.md#claim-not-found");
    }
}
