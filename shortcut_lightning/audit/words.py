"""The words of an audit's page, explained for who reads one for the first time."""

#: Word, what it means, and on which pages it stands: all, or those with pictures, with scores that
#: asked a model, with baselines that asked none, with a ladder or a test of the set. `{tuned_on}`
#: is where thresholds come from.
WORDS: tuple[tuple[str, str, str], ...] = (
    ("member", "a picture that is said to have been trained on", "always"),
    ("non-member, hold-out", "a picture like them that surely was not", "always"),
    ("score", "a way to ask the model about one picture; high speaks for a member", "always"),
    ("target, shadow, base", "the audited model; one like it whose members are known, on which "
     "everything is tuned; the model before any of these pictures", "always"),
    ("access", "what a score needs: black-box, pictures out; grey-box, errors and noise of single "
     "steps; white-box, gradients of the weights", "asked"),
    ("queries", "calls of the denoiser for one picture and one model", "asked"),
    ("AUC", "how often a random member scores above a random non-member; 0.5 is guessing, and "
     "0.1 separates as well as 0.9 does, the other way round", "always"),
    ("p", "how often sets of this size would differ so much by chance, members higher", "always"),
    ("ASR", "accuracy at the threshold set on {tuned_on}, mean of both sets", "always"),
    ("TPR member at 1 %", "members caught when at most 1 % of non-members are accused", "always"),
    ("TPR hold-out (ref) at 1 %", "the same with the roles exchanged, as published code has it",
     "always"),
    ("AUC on base; AUC above that", "the score on a model that cannot know the members, which must "
     "be near 0.5; and how much the target's is above it, on the same pictures", "always"),
    ("AUC, target minus base", "with the base model's answer taken off each picture's", "always"),
    ("tau, threshold set for", "the score from which a picture is flagged, set on {tuned_on}",
     "always"),
    ("non-members flagged", "the share that the threshold really accuses here: compare it with the "
     "share it was set for", "always"),
    ("members caught at most", "with the threshold set on these very pictures: an upper bound",
     "always"),
    ("hold-outs: enough, few, refused", "ten or more, one or more, or not one non-member may be "
     "accused at this share; a refused number is not shown", "always"),
    ("interval", "95 %: where the number would lie for other pictures like these", "always"),
    ("blind", "a classifier that sees captions, pictures or files and no model: where it tells the "
     "sets apart, they differ by more than training; far below 0.5 they share rows, as where each "
     "caption stands once in either, and do not differ", "blind"),
    ("void", "the sets can be told apart without the model, so the audit says nothing", "always"),
    ("chance: 0.5 ±", "three standard errors: what is nearer to 0.5 is chance", "always"),
    ("captions fixed, shuffled, swapped", "the score with one sentence for all; with captions that "
     "change places within each set; between the sets", "pictures"),
    ("CDI", "features of several scores and a classifier, for the set as a whole", "dataset"),
    ("p, whichever way", "how often relabelled sets differ as much, in any direction", "dataset"),
    ("direction", "of the mean feature, in deviations: above 0 where the given members look like "
     "members", "dataset"),
    ("p on base", "the same test on the base model, which must find nothing", "dataset"),
    ("p, nothing to find", "the same test between two halves of the non-members", "dataset"),
    ("images of each: p (approx.)", "what so many pictures of each set would give", "dataset"),
    ("rung", "a number of queries; undecided pictures climb to the next", "ladder"),
)  # fmt: skip
