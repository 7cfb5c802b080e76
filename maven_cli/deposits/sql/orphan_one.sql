UPDATE deposits
   SET status = 'ORPHANED', reason = NULL, confirmations = 0, verified_at = NULL, verified_epoch = NULL, evidence = NULL,
       confirmed_at = NULL, updated_at = now()
 WHERE id = %(id)s AND status NOT IN ('CREDITED', 'REJECTED')
