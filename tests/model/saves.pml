/* The life of saves: staging, sealing, aborting, failing, draining, committing, and the deaths of
 * both processes at any step. docs/RING.md explains the protocol; the names are those of
 * src/ring/layout.h, src/process/drain_loop.cpp and src/store/commit.cpp.
 *
 * Covered: SAVES saves to one final name, through SLOTS slots and RECORDS records that are re-used;
 * blocks that are published in any order, or void; writes that end in any order; I/O errors (of a
 * write, an fsync, the rename, the sync of the directory); DEATHS deaths of the checkpoint process
 * at any step, with writes in flight that end later; the trainer's death at any step; the ledger;
 * the name that a save claims before the one before it lets go of its own; the request to shut down
 * while saves are still in flight.
 *
 * Not covered here: memory is sequentially consistent, and a sleeper wakes as soon as what it waits
 * for is true. That this is so is what doorbell.pml shows. Release and acquire are the thread
 * sanitizer's part (tests/ring/weak_orders_test.cpp). No time-outs, no second checkpointer (so nothing
 * of what an orphan may rename over), no loss of power, no path without locks.
 *
 * One step reads or writes at most one word that the other side writes; what lies between two such
 * accesses is private to one process and is put into the same step. A process that is killed stops
 * between any two steps.
 *
 * There is one record less than in the trainer, which has one more than saves in flight: so FINISH
 * alone keeps a record from being re-used too early.
 *
 * Every assertion holds, no execution stops but at an end state where every save has ended, and
 * every execution is finite. Each MUTANT_* breaks one rule, and is refuted.
 */

#ifndef SAVES
#define SAVES 3
#endif
#ifndef RECORDS
#define RECORDS 2
#endif
#ifndef DEATHS
#define DEATHS 1 /* of the checkpoint process */
#endif
#ifndef FAULTS
#define FAULTS 1 /* of the disk */
#endif
#ifndef TRAINER_DEATHS
#define TRAINER_DEATHS 0
#endif
#ifndef ABORTS
#define ABORTS 1 /* saves that the trainer gives up, or whose copy fails */
#endif
#ifndef BLOCKS_FIRST
#define BLOCKS_FIRST 3 /* of save 1 */
#endif
#ifndef BLOCKS_LATER
#define BLOCKS_LATER 1 /* of every other save */
#endif
#define SLOTS 2

#define BLOCKS(save) ((save) == 1 -> BLOCKS_FIRST : BLOCKS_LATER)
#define ALL_OF(save) ((1 << BLOCKS(save)) - 1)
#define SLOT(position) ((position) % SLOTS)
#define RECORD(save) ((save) % RECORDS)

mtype = { none, staging, sealed, aborted, open, syncing, renaming, committed, failed };
#define IS_TERMINAL(progress) ((progress) == committed || (progress) == failed || (progress) == aborted)

/* ---- shared memory. Bytes are not modelled: a block holds its position + 1, or 0 while torn. */

byte memory[SLOTS];    /* the block in it */
byte published[SLOTS]; /* PUBLISH */
bool voided[SLOTS];

byte word_save[RECORDS]; /* INTENT: the producer's word, (save, intent) */
mtype word_intent[RECORDS] = none;
byte first_position[RECORDS];
byte end_position[RECORDS];
byte described[RECORDS]; /* whose description and tables these are; 0: half rewritten */
byte ledger[RECORDS];    /* a bit for each block */

byte outcome_save[RECORDS]; /* OUTCOME: the consumer's word, (save, progress) */
mtype outcome_progress[RECORDS] = none;

byte tail;           /* RELEASE */
byte finished_saves; /* FINISH */
bool shutdown;       /* SHUTDOWN */

#define INTENT_OF(save) (word_save[RECORD(save)] == (save) -> word_intent[RECORD(save)] : none)
#define PROGRESS_OF(save) \
  (outcome_save[RECORD(save)] == (save) -> outcome_progress[RECORD(save)] : none)

#ifdef MUTANT_ONE_WORD
/* Both sides store one word, each with what it last saw of the other's half. */
#define STORE_INTENT(save, value)                                       \
  kept = PROGRESS_OF(save);                                             \
  atomic {                                                              \
    word_save[RECORD(save)] = save; word_intent[RECORD(save)] = value;  \
    outcome_save[RECORD(save)] = save; outcome_progress[RECORD(save)] = kept; \
    kept = none;                                                        \
  }
#define STORE_PROGRESS(save, value)                                     \
  kept = INTENT_OF(save);                                               \
  atomic {                                                              \
    outcome_save[RECORD(save)] = save; outcome_progress[RECORD(save)] = value; \
    word_save[RECORD(save)] = save; word_intent[RECORD(save)] = kept;   \
    kept = none; NOTE_RESULT(save, value);                              \
  }
#else
#define STORE_INTENT(save, value) \
  d_step { word_save[RECORD(save)] = save; word_intent[RECORD(save)] = value }
#define STORE_PROGRESS(save, value)                                     \
  d_step {                                                              \
    outcome_save[RECORD(save)] = save; outcome_progress[RECORD(save)] = value; \
    NOTE_RESULT(save, value);                                           \
  }
#endif

/* ---- the disk, and writes that are on their way to it */

bool temporary[SAVES + 1];      /* it exists */
byte on_disk[SAVES + 1];        /* a bit for each block of the temporary, or of the final file */
bool synced[SAVES + 1];
byte final_name;                /* the save that is visible under it */
byte directory_synced;          /* the newest rename that will survive a crash */
byte writing[SLOTS];            /* position + 1: a write of this process is in flight */
mtype written[SLOTS] = none;    /* how it ended, until it is reaped: committed or failed */
byte stale[SLOTS];              /* position + 1: a write of a dead process is in flight */
byte written_save;              /* the save that writes belong to, and its first position */
byte written_first;

#define IN_FLIGHT (writing[0] != 0 || writing[1] != 0)
/* Writes in flight keep the open file of the dead process, and with it the lock. */
#define LOCKED_BY_THE_DEAD (stale[0] != 0 || stale[1] != 0)

/* ---- who lives */

bool helper_alive = true;
bool helper_killed; /* and has not stopped yet */
bool trainer_dead;
byte faults;
byte aborts;

/* ---- what the assertions remember */

bool was_sealed[SAVES + 1];
bool has_void[SAVES + 1];
mtype result[SAVES + 1] = none; /* the first terminal word */
#define NOTE_RESULT(save, value)                                   \
  if                                                               \
  :: IS_TERMINAL(value) ->                                         \
    /* A failure is never replaced by a success, nor the reverse. */ \
    assert(result[save] == none || result[save] == value);         \
    result[save] = value                                           \
  :: else                                                          \
  fi

byte delivered; /* outcomes that the supervisor has fetched */

/* -------------------------------------------------------------------------------- trainer */

active proctype Producer() {
  byte save = 1;
  byte claimed, end, slot;
  byte copying[SLOTS]; /* position + 1: claimed, not yet published */
  bool stop;           /* claims nothing more: failed, or given up */
  mtype kept = none;   /* of MUTANT_ONE_WORD */
  {
    do
    :: save <= SAVES ->
      /* The trainer has fetched the outcome that was in this record. */
      (save <= delivered + RECORDS);
#ifdef MUTANT_NO_FINISH
      skip; /* the outcome was terminal: that shall do */
#else
      (save <= RECORDS || finished_saves >= save - RECORDS);
#endif
      d_step { described[RECORD(save)] = 0; first_position[RECORD(save)] = claimed;
               end_position[RECORD(save)] = 255; ledger[RECORD(save)] = 0;
               end = claimed + BLOCKS(save) }
      described[RECORD(save)] = save;
      STORE_INTENT(save, staging);
      do
      /* try_claim */
      :: atomic { !stop && claimed < end && claimed - tail < SLOTS ->
          slot = SLOT(claimed);
          assert(writing[slot] == 0 && stale[slot] == 0);
          memory[slot] = 0; claimed++; copying[slot] = claimed; slot = 0 }
      /* publish, in any order */
      :: atomic { copying[0] != 0 -> memory[0] = copying[0]; voided[0] = false;
                  published[0] = copying[0]; copying[0] = 0 }
      :: atomic { copying[1] != 0 -> memory[1] = copying[1]; voided[1] = false;
                  published[1] = copying[1]; copying[1] = 0 }
      /* a copy failed: void */
      :: atomic { copying[0] != 0 && (aborts < ABORTS || has_void[save]) -> aborts = ABORTS;
                  stop = true; has_void[save] = true;
                  voided[0] = true; published[0] = copying[0]; copying[0] = 0 }
      :: atomic { copying[1] != 0 && (aborts < ABORTS || has_void[save]) -> aborts = ABORTS;
                  stop = true; has_void[save] = true;
                  voided[1] = true; published[1] = copying[1]; copying[1] = 0 }
      /* given up, also after the last block was published */
      :: atomic { !stop && aborts < ABORTS -> aborts++; stop = true }
      /* current_failed, looked at before each claim */
      :: atomic { !stop && claimed < end && IS_TERMINAL(PROGRESS_OF(save)) -> stop = true }
      :: copying[0] == 0 && copying[1] == 0 && (stop || claimed == end) -> break
      od;
      if
      :: atomic { !stop && claimed == end -> end_position[RECORD(save)] = end };
        atomic { was_sealed[save] = true;
#ifndef MUTANT_ONE_WORD
          STORE_INTENT(save, sealed)
#endif
        }
#ifdef MUTANT_ONE_WORD
        STORE_INTENT(save, sealed);
#endif
      :: atomic { stop -> end = claimed; end_position[RECORD(save)] = end };
        STORE_INTENT(save, aborted);
      fi;
      d_step { save++; stop = false; end = 0 }
    :: else -> break
    od;
    /* The destructor does not wait for the saves in flight; close() does. */
    shutdown = true
  } unless { trainer_dead };
}

active proctype Supervisor() {
  {
    do
    :: atomic { delivered < SAVES && IS_TERMINAL(PROGRESS_OF(delivered + 1)) ->
        delivered++;
        assert(PROGRESS_OF(delivered) == result[delivered]);
        assert(result[delivered] != committed ||
               (final_name >= delivered && directory_synced >= delivered)) }
    /* The pidfd of the checkpoint process is readable. Stored outcomes are collected first. */
    :: atomic { !helper_alive && !(delivered < SAVES && IS_TERMINAL(PROGRESS_OF(delivered + 1))) ->
        if
        :: shutdown && delivered == SAVES -> break
        :: else -> helper_alive = true
        fi }
    od
  } unless { trainer_dead };
}

/* ----------------------------------------------------------------------- checkpoint process */

/* The tail moves over blocks that are on disk, or void, or of a save that has ended. */
#define RELEASE(upto)                                                                       \
  d_step {                                                                                  \
    slot = tail;                                                                            \
    do                                                                                      \
    :: slot < upto ->                                                                       \
      assert(voided[SLOT(slot)] || (on_disk[save] & (1 << (slot - first_position[RECORD(save)])))); \
      slot++                                                                                \
    :: else -> break                                                                        \
    od;                                                                                     \
    tail = upto; slot = 0                                                                   \
  }

#define CAN_FAIL (faults < FAULTS)

/* Before a save lets go of its name, the next one takes its own. */
#ifdef MUTANT_CLAIM_NOT_STORED
#define STORE_CLAIM skip
#else
#define STORE_CLAIM STORE_PROGRESS(save + 1, open)
#endif
#define CLAIM_NEXT                                                                   \
  if                                                                                 \
  :: save < SAVES && INTENT_OF(save + 1) != none && PROGRESS_OF(save + 1) == none -> \
    STORE_CLAIM;                                                                     \
    d_step { MAKE_TEMPORARY(save + 1) }                                              \
  :: else                                                                            \
  fi
/* Exclusively: nobody may have made it before. */
#define MAKE_TEMPORARY(save)                                                         \
  assert(!temporary[save]);                                                          \
  temporary[save] = true; on_disk[save] = 0; synced[save] = false

active proctype Consumer() {
  byte save, take, slot, block, upto;
  mtype found = none, wanted = none;
  mtype kept = none;     /* of MUTANT_ONE_WORD */
  bool done[SLOTS];      /* completed, but not below the tail yet */
  bool created;          /* this process made the temporary */
  bool wrote;            /* this process has submitted a block of this save */
  bool trainer_gone;     /* its pidfd was seen */
  bool asked;            /* to shut down */
life:
  {
    d_step { save = finished_saves + 1; take = tail };
next_save:
    atomic { found = none; wanted = none; created = false; wrote = false;
             done[0] = false; done[1] = false };
#ifndef MUTANT_SHUTDOWN_LOOKED_AT_LAST
    asked = shutdown; /* before the look for saves: a save sealed before the request is seen */
#endif
    do
    :: atomic { (INTENT_OF(save) == sealed || INTENT_OF(save) == aborted) &&
                IS_TERMINAL(PROGRESS_OF(save)) && tail >= end_position[RECORD(save)] ->
        finished_saves = save; save++ }
    :: else -> break
    od;
    if
    :: INTENT_OF(save) == none ->
#ifdef MUTANT_SHUTDOWN_LOOKED_AT_LAST
      asked = shutdown;
#endif
      if
      :: asked || trainer_gone -> goto ends
      :: else
      fi;
      /* sleep */
      if
      :: INTENT_OF(save) != none || shutdown -> skip
      :: trainer_dead -> trainer_gone = true
      fi;
      goto next_save
    :: else
    fi;
    if
    :: trainer_gone && IS_TERMINAL(PROGRESS_OF(save)) -> goto ends
    :: else
    fi;

    /* drain_save */
    found = PROGRESS_OF(save);
    assert(described[RECORD(save)] == save);
    if
    :: IS_TERMINAL(found) -> goto discard
    :: found == none -> STORE_PROGRESS(save, open)
    :: else
    fi;

    /* begin: open or make the temporary, take its lock */
#ifdef MUTANT_RENAMING_IS_DONE_AGAIN
    if
    :: found == renaming -> found = syncing
    :: else
    fi;
#endif
    if
    :: found != none && temporary[save] ->
#ifndef MUTANT_NO_LOCK
      !LOCKED_BY_THE_DEAD;
#endif
      skip
#ifndef MUTANT_LOST_FILE_MADE_AGAIN
    /* Blocks were let go, and the file that held them is gone: never make another one, which a
     * further successor would take for it. */
    :: found != none && found != renaming && !temporary[save] &&
       tail > first_position[RECORD(save)] -> goto error
    :: (found == none || !temporary[save] && tail <= first_position[RECORD(save)]) && found != renaming ->
#else
    :: (found == none || !temporary[save]) && found != renaming ->
#endif
      d_step { MAKE_TEMPORARY(save); created = true }
    :: found == renaming && !temporary[save]
    fi;
    d_step { written_save = save; written_first = first_position[RECORD(save)] };
    if
    :: found == renaming -> goto finish_rename
    :: else
    fi;

    /* drain_blocks */
    do
    :: true ->
      /* try_take: first the block, then the intent */
#ifdef MUTANT_INTENT_BEFORE_BLOCK
      wanted = INTENT_OF(save);
#endif
      if
      :: take >= first_position[RECORD(save)] &&
         take - first_position[RECORD(save)] < BLOCKS(save) &&
         published[SLOT(take)] == take + 1 ->
#ifndef MUTANT_INTENT_BEFORE_BLOCK
        wanted = INTENT_OF(save);
#endif
        if
        :: (wanted == sealed || wanted == aborted) && take >= end_position[RECORD(save)]
        :: else ->
          d_step { slot = SLOT(take); block = take - first_position[RECORD(save)]; take++ };
          if
          :: voided[slot] -> done[slot] = true
          :: else ->
            if
            /* begun again although the file, with what was written, is gone */
            :: created && !wrote && block != 0 -> goto error
            :: else
            fi;
            /* finalize: the block is what its position says; its checksum is kept, and the last
             * block holds a field that needs those of all others */
            d_step {
              assert(described[RECORD(save)] == save);
              assert(memory[slot] == take);
              ledger[RECORD(save)] = ledger[RECORD(save)] | (1 << block)
            };
            if
            :: block + 1 == BLOCKS(save) && ledger[RECORD(save)] != ALL_OF(save) ->
              /* One that is missing belongs to a void block; the save can only be aborted. */
              assert(has_void[save]);
              goto error
            :: else
            fi;
            d_step { writing[slot] = take; wrote = true;
#ifdef MUTANT_RELEASE_BEFORE_WRITTEN
              done[slot] = true;
#endif
              slot = 0; block = 0 }
          fi
        fi
      :: else
      fi;
      /* reap */
      if
      :: written[0] == failed || written[1] == failed -> goto error
      :: else ->
        d_step {
          if :: written[0] == committed -> done[0] = true; written[0] = none :: else fi;
          if :: written[1] == committed -> done[1] = true; written[1] = none :: else fi;
          upto = tail;
          if
          :: upto < take && done[SLOT(upto)] -> done[SLOT(upto)] = false; upto++
          :: else
          fi;
          if
          :: upto < take && done[SLOT(upto)] -> done[SLOT(upto)] = false; upto++
          :: else
          fi
        }
      fi;
      if
      :: upto > tail -> RELEASE(upto)
      :: else
      fi;
      d_step { wanted = INTENT_OF(save); upto = 0 };
      if
      :: wanted == aborted -> goto undo
      :: wanted == sealed && tail >= end_position[RECORD(save)] -> goto commit
#ifdef MUTANT_COMMIT_UNSEALED
      :: wanted == staging && tail == first_position[RECORD(save)] + BLOCKS(save) -> goto commit
#endif
      :: trainer_gone && INTENT_OF(save) == staging -> goto undo
      :: else
      fi;
      /* sleep, if nothing moved */
      if
      :: take >= first_position[RECORD(save)] &&
         take - first_position[RECORD(save)] < BLOCKS(save) &&
         published[SLOT(take)] == take + 1 &&
         (INTENT_OF(save) == staging || take < end_position[RECORD(save)]) -> skip
      :: INTENT_OF(save) != wanted -> skip
      :: written[0] != none || written[1] != none -> skip
      :: trainer_dead && !trainer_gone -> trainer_gone = true;
#ifdef MUTANT_LAST_WORD_NOT_LOADED
        if
        :: wanted == staging -> goto undo
        :: else
        fi
#endif
      fi
    od;

commit:
    if
    :: created && on_disk[save] != ALL_OF(save) && !wrote -> goto error
    :: else
    fi;
    assert(!IN_FLIGHT);
    STORE_PROGRESS(save, syncing);
#ifdef MUTANT_RENAME_BEFORE_SYNC
    STORE_PROGRESS(save, renaming);
    goto rename;
sync_late:
#endif
    if
    :: synced[save] = true
    :: atomic { CAN_FAIL -> faults++; goto error }
    fi;
#ifdef MUTANT_RENAME_BEFORE_SYNC
    goto sync_directory;
#endif
#ifdef MUTANT_COMMITTED_BEFORE_RENAME
    STORE_PROGRESS(save, committed);
#endif
    CLAIM_NEXT;
#ifndef MUTANT_RENAMING_NOT_STORED
    STORE_PROGRESS(save, renaming);
#endif
rename:
    if
    :: atomic { temporary[save] ->
        /* No commit before the trainer sealed it and every block is on disk. */
        assert(was_sealed[save] && on_disk[save] == ALL_OF(save) && synced[save]);
        assert(final_name < save);
        assert(!LOCKED_BY_THE_DEAD);
        temporary[save] = false; final_name = save }
    :: atomic { temporary[save] && CAN_FAIL -> faults++ };
#ifndef MUTANT_FAILED_RENAME_NOT_STORED
      /* It is about to be removed: a successor must not take that for a rename. */
      STORE_PROGRESS(save, syncing);
#endif
      goto error
    :: !temporary[save] -> goto error
    fi;
#ifdef MUTANT_RENAME_BEFORE_SYNC
    goto sync_late;
#endif
sync_directory:
    if
    :: directory_synced = final_name
    :: atomic { CAN_FAIL -> faults++; goto error }
    fi;
    STORE_PROGRESS(save, committed);
    assert(final_name == save && directory_synced == save);
    goto next_save;

finish_rename:
    if
    :: temporary[save] ->
      CLAIM_NEXT;
      goto rename
    :: !temporary[save] && final_name != 0 -> goto sync_directory
    :: !temporary[save] && final_name == 0 -> goto error
    fi;

undo:
    CLAIM_NEXT;
    !IN_FLIGHT;
    d_step { written[0] = none; written[1] = none; temporary[save] = false };
    wanted = INTENT_OF(save);
    assert(!was_sealed[save]);
    if
    :: wanted == aborted && end_position[RECORD(save)] > tail ->
      d_step { tail = end_position[RECORD(save)]; take = tail }
    :: wanted == aborted && end_position[RECORD(save)] <= tail -> take = tail
    :: else
    fi;
    STORE_PROGRESS(save, aborted);
    goto next_save;

error:
    /* Nothing fails by itself; but where a process was killed while it undid a save that was given
     * up, the next one may find the file gone and call that a failure. */
    assert(faults > 0 || has_void[save] || INTENT_OF(save) == aborted);
    CLAIM_NEXT;
    !IN_FLIGHT; /* until then a write may still read its block */
    d_step { written[0] = none; written[1] = none };
    temporary[save] = false;
    STORE_PROGRESS(save, failed);

discard:
    wanted = INTENT_OF(save);
    if
    :: wanted != staging ->
      d_step {
        if
        :: end_position[RECORD(save)] > take && wanted != none -> take = end_position[RECORD(save)]
        :: else
        fi;
        if
        :: end_position[RECORD(save)] > tail && wanted != none -> tail = end_position[RECORD(save)]
        :: else
        fi
      };
      goto next_save
    :: wanted == staging && trainer_gone -> goto next_save
    :: else
    fi;
    if
    :: INTENT_OF(save) != staging -> skip
    :: trainer_dead && !trainer_gone -> trainer_gone = true
    fi;
    goto discard;

ends:
    /* Nothing that was sealed is left behind. */
    atomic {
      slot = 1;
      do
      :: slot <= SAVES ->
        assert(!was_sealed[slot] || result[slot] != none);
        assert(!temporary[slot]);
        slot++
      :: else -> break
      od;
      slot = 0;
      helper_alive = false
    }
  } unless { helper_killed };
  /* The process is gone: only shared memory and the disk remain. The kernel ends its writes later. */
  d_step {
    if
    :: helper_killed ->
      helper_killed = false; helper_alive = false;
      if :: writing[0] != 0 -> stale[0] = writing[0] :: else fi;
      if :: writing[1] != 0 -> stale[1] = writing[1] :: else fi;
    :: else
    fi;
    writing[0] = 0; writing[1] = 0; written[0] = none; written[1] = none;
    save = 0; take = 0; slot = 0; block = 0; upto = 0;
    found = none; wanted = none; kept = none; done[0] = false; done[1] = false;
    created = false; wrote = false; trainer_gone = false; asked = false
  };
end_gone:
  helper_alive;
  goto life;
}

/* --------------------------------------------------------------------- kernel, disk, accidents */

/* A write transfers the block when it ends, as late as it can. */
#define TRANSFER(slot, position)                                        \
  assert(memory[slot] == position);                                     \
  on_disk[written_save] = on_disk[written_save] | (1 << (position - 1 - written_first))

active proctype Kernel() {
end_idle:
  do
  :: atomic { writing[0] != 0 -> TRANSFER(0, writing[0]); writing[0] = 0; written[0] = committed }
  :: atomic { writing[1] != 0 -> TRANSFER(1, writing[1]); writing[1] = 0; written[1] = committed }
  :: atomic { writing[0] != 0 && CAN_FAIL -> faults++; writing[0] = 0; written[0] = failed }
  :: atomic { writing[1] != 0 && CAN_FAIL -> faults++; writing[1] = 0; written[1] = failed }
  :: atomic { stale[0] != 0 -> TRANSFER(0, stale[0]); stale[0] = 0 }
  :: atomic { stale[1] != 0 -> TRANSFER(1, stale[1]); stale[1] = 0 }
  od
}

/* Any of the deaths that are left may come next, or none any more: nobody may need one to go on. */
active proctype Accidents() {
  byte helper_deaths = DEATHS, trainer_deaths = TRAINER_DEATHS;
end_quiet:
  do
  :: atomic { helper_deaths > 0 && helper_alive && !helper_killed && finished_saves < SAVES ->
      helper_deaths--; helper_killed = true }
  :: atomic { trainer_deaths > 0 -> trainer_deaths--; trainer_dead = true }
  :: atomic { helper_deaths > 0 || trainer_deaths > 0 -> helper_deaths = 0; trainer_deaths = 0 }
  od
}
